"""End a run by a signal: finish the step, save a checkpoint, and leave; leave at once after a second signal."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGXCPU")
"""Ctrl-C; a scheduler or `kill`; a terminal that closes; the warning of a scheduler before its time limit; a limit of
CPU time. Each of them would end the process."""
TOGETHER = 1.0
"""Seconds within which signals are one under a launcher, which passes on a Ctrl-C that each process gets anyway."""


class Interrupted(Exception):
    """A signal arrived and a checkpoint was saved. `code` is the exit code of the process."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.code = 128 + number


class Signals:
    """The signal that ends a run, if one arrived.

    Args:
        doing: returns what is finished before a checkpoint is saved, such as "step 7".
        main: True for the process that prints.
    """

    def __init__(self, doing: Callable[[], str], main: bool):
        self.doing, self.main = doing, main
        self.number: int | None = None
        self._since = 0.0

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Take note of signals within the block.

        Only the main thread of a process can handle signals; in other threads they keep their meaning. So does a signal
        that is ignored, as nohup does with SIGHUP.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
        handled = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
        before = {number: signal.signal(number, self._arrived) for number in handled}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _arrived(self, number: int, frame: Any) -> None:
        name, now = signal.Signals(number).name, time.monotonic()
        if self.number is not None:
            if "RANK" in os.environ and now - self._since < TOGETHER:
                return
            # The cursor was hidden while a bar was drawn, and the line of the bar is not ended.
            _write(
                "\x1b[?25h" if os.isatty(2) else "",
                f"{name}: stopped now; resume_from_checkpoint: auto resumes the run",
            )
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.number, self._since = number, now
        if self.main:
            again = "press Ctrl-C again to stop now" if number == signal.SIGINT else "a second signal stops now"
            _write("", f"{name}: finishing {self.doing()}, then saving a checkpoint; {again}")


def _write(control: str, text: str) -> None:
    """Write a line to stderr without Python's streams: the handler may have interrupted one of their writes."""
    with contextlib.suppress(OSError):
        os.write(2, f"{control}\n{text}\n".encode())
