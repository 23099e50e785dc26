"""Write records on a thread of their own, so that a slow logger never delays training."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from functools import partial

RECORDS = 256
"""Records that may wait: half a minute at ten steps a second. With a table of texts, a record may take a megabyte."""
PATIENCE = 10.0
"""Seconds to wait for loggers at the end of a run. Schedulers commonly kill a process 30 seconds after SIGTERM."""


class LogQueue:
    """A queue of records, and the thread that writes them. If it is full, the oldest record is dropped.

    Args:
        size: the number of records that may wait.
        patience: seconds that `drain` waits.
    """

    def __init__(self, size: int = RECORDS, patience: float = PATIENCE):
        self.size, self.patience = size, patience
        self.dropped = 0
        self._waiting: queue.Queue[Callable[[], object] | None] | None = None
        self._thread: threading.Thread | None = None

    def put(self, write: Callable[[], object]) -> None:
        """Add a record, as the function that writes it. Starts the thread on first use, and never waits."""
        if self._waiting is None:
            self._waiting = queue.Queue(self.size)
            # A daemon, so that a logger that hangs does not keep the process alive.
            self._thread = threading.Thread(target=partial(_work, self._waiting), name="tunesmith-log", daemon=True)
            self._thread.start()
        while True:
            try:
                self._waiting.put_nowait(write)
                return
            except queue.Full:
                self._drop(self._waiting)

    def drain(self) -> bool:
        """Wait until all records are written, and end the thread. After `patience`, drop the rest and return False."""
        if self._waiting is None or self._thread is None:
            return True
        waiting, thread, deadline = self._waiting, self._thread, time.monotonic() + self.patience
        self._waiting = self._thread = None
        with contextlib.suppress(queue.Full):
            waiting.put(None, timeout=self.patience)
        thread.join(max(0.0, deadline - time.monotonic()))
        while self._drop(waiting):
            pass
        waiting.put(None)  # a logger that hangs may return: its thread ends then
        return not thread.is_alive()

    def _drop(self, waiting: queue.Queue[Callable[[], object] | None]) -> bool:
        """Drop the oldest record that is not being written, if there is one."""
        with contextlib.suppress(queue.Empty):
            self.dropped += waiting.get_nowait() is not None
            return True
        return False


def _work(waiting: queue.Queue[Callable[[], object] | None]) -> None:
    while (write := waiting.get()) is not None:
        write()
