"""Replace the output streams of a command: without secrets, and without an end of the command if one is lost."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, cast

from tunesmith.printable import harmless
from tunesmith.redact import redact, settled

LONGEST = 100_000
"""Characters that wait for the end of their line. More than that is neither a line nor a secret."""


class Redacted:
    """A text stream that redacts what is written to it. Other attributes are those of the original stream, `plain`.

    A line is redacted as a whole, because a secret may come in several parts. `flush` writes the rest of a line as far
    as it can't be the first part of a secret. A stream that can't be written to, since its reader has ended or its disk
    is full, is muted, and `lost` is the error: the end of a reader does not end the run.

    Args:
        plain: the original stream.
        notice: printed to stderr when this stream is lost; nothing if empty.
    """

    def __init__(self, plain: Any, notice: str = ""):
        self.plain, self.notice = plain, notice
        self.lost: Exception | None = None
        self._waiting = ""
        self._lock = threading.RLock()  # loggers write on a thread of their own

    def write(self, text: str) -> int:
        with self._lock:
            self._waiting += text
            if "\n" in text or len(self._waiting) > LONGEST:
                self._emit(settled(self._waiting, self._waiting.rfind("\n") + 1))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        with self._lock:
            self._emit(settled(self._waiting, len(self._waiting)))
            self._attempt(self.plain.flush)

    def finish(self) -> None:
        """Write everything that waits. Call it when nothing follows."""
        with self._lock:
            self._emit(len(self._waiting))
            self._attempt(self.plain.flush)

    def _emit(self, end: int) -> None:
        """Write the first characters of those that wait; all of them if too many would be left."""
        end = end if len(self._waiting) - end < LONGEST else len(self._waiting)
        text, self._waiting = self._waiting[:end], self._waiting[end:]
        if text:
            self._attempt(partial(self.plain.write, harmless(redact(text))))

    def _attempt(self, call: Callable[[], object]) -> None:
        """Call a function of the stream unless it is lost. Mute it at the first error."""
        if self.lost is not None:
            return
        try:
            call()
        except UnicodeError:
            raise
        except (OSError, ValueError) as error:  # ValueError: the stream was closed
            self.lost = error
            self._divert()
            if self.notice and sys.stderr is not self:
                print(f"warning: the output is lost: {error}; {self.notice}", file=sys.stderr)

    def _divert(self) -> None:
        """Let later output disappear, also that of libraries, and what Python flushes when the process ends."""
        with contextlib.suppress(OSError, ValueError):
            number, nothing = self.plain.fileno(), os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, number)
            os.close(nothing)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.plain, name)


@contextlib.contextmanager
def redacted_output() -> Iterator[None]:
    """Redact what is printed within the block, also by plugins and libraries."""
    _open_missing()
    out, err = (Redacted(stream or open(os.devnull, "w")) for stream in (sys.stdout, sys.stderr))  # noqa: SIM115
    with contextlib.redirect_stdout(cast(Any, out)), contextlib.redirect_stderr(cast(Any, err)):
        try:
            yield
        finally:
            out.finish()
            err.finish()


def outlive_output(notice: str) -> None:
    """Print a notice if stdout is lost. Call it in a command that continues without its output."""
    if isinstance(sys.stdout, Redacted):
        sys.stdout.notice = notice


def output_error() -> OSError | None:
    """Return the error by which stdout was lost, unless its reader has just ended, as `head` does."""
    lost = sys.stdout.lost if isinstance(sys.stdout, Redacted) else None
    return lost if isinstance(lost, OSError) and not isinstance(lost, BrokenPipeError) else None


def _open_missing() -> None:
    """Open standard streams that are closed: the next file of the run, such as a checkpoint, would get their number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
