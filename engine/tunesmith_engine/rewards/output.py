"""Read what reward functions print, and keep the end of it."""

from __future__ import annotations

import contextlib
import os
import selectors
import threading
import time

KEPT = 4096
"""Bytes of output that are kept. A function that prints without end neither blocks nor fills memory."""
SHOWN = 600
"""Most characters of it in an error."""


class Output:
    """The end of what a process prints into a pipe, which a thread reads."""

    def __init__(self, descriptor: int):
        self.descriptor = descriptor
        self.total = 0
        self._tail = bytearray()
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._read, name="tunesmith-reward-output", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        # A process that the function has started may hold the pipe open after the end, so that read() would never
        # return.
        with selectors.DefaultSelector() as selector, contextlib.suppress(OSError):
            selector.register(self.descriptor, selectors.EVENT_READ)
            while not self._ending.is_set():
                if not selector.select(0.1):
                    continue
                with self._lock:  # what is no longer in the pipe is in the tail
                    chunk = os.read(self.descriptor, 1 << 16)
                    if not chunk:
                        break
                    self.total += len(chunk)
                    self._tail += chunk
                    del self._tail[:-KEPT]
        os.close(self.descriptor)

    def since(self, total: int) -> str:
        """Return the end of what was printed after the first `total` bytes, including what is still in the pipe.

        A function that prints without end is not waited for longer than a tenth of a second.
        """
        until = time.monotonic() + 0.1
        with selectors.DefaultSelector() as selector, contextlib.suppress(OSError, ValueError):  # closed
            selector.register(self.descriptor, selectors.EVENT_READ)
            while self._thread.is_alive() and selector.select(0) and time.monotonic() < until:
                time.sleep(0.001)
        with self._lock:
            number = min(self.total - total, len(self._tail))
            return self._tail[len(self._tail) - number :].decode(errors="replace").strip()

    def settle(self) -> None:
        """Wait until nothing is left in the pipe, as far as a tenth of a second is enough for that."""
        until, before = time.monotonic() + 0.1, -1
        while self.total != before and time.monotonic() < until:
            before = self.total
            time.sleep(0.01)

    def close(self) -> None:
        """End the thread, which closes the pipe."""
        self._ending.set()
        self._thread.join(2.0)


def shown(text: str) -> str:
    """Return the end of a text, whole lines as far as possible."""
    if len(text) <= SHOWN:
        return text
    return "... " + text[-SHOWN:].partition("\n")[2] if "\n" in text[-SHOWN:] else "... " + text[-SHOWN:]
