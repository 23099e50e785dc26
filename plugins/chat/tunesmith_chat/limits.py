"""Limit the CPU time and memory of the process that renders chat templates. Standard library only.

Time is CPU time, so a slow or busy machine does not count against a template. The limits apply to templates inside the
sandbox. Code that escapes the sandbox finds an empty environment and can't write files or start processes, but it runs
as the user. Memory is limited if /proc/self/statm exists (Linux). Without the module `resource` (Windows), only the
parent limits time: it ends the child at `deadline`.
"""

from __future__ import annotations

import signal
from pathlib import Path

try:
    import resource
except ImportError:
    resource = None  # type: ignore[assignment]

OUT_OF_MEMORY = 77
"""Exit status of a child that exceeded its memory limit."""
MEGABYTE = 1 << 20
_FILES = 8  # the three pipes, and the files that Python opens to import a module


def seconds(messages: int, size: int) -> int:
    """Return the CPU seconds for a conversation: 2, and more for a long one, rendered once or twice for each turn."""
    return 2 * (1 + messages // 100 + size // (10 * MEGABYTE))


def deadline(messages: int, size: int) -> int:
    """Return the seconds of real time after which the parent ends a child that sleeps or has no CPU limit."""
    return 15 * seconds(messages, size)


def room(size: int) -> int:
    """Return the bytes of memory for a request of `size` bytes: 16 MB, plus 16 copies of it at 4 bytes a character."""
    return 16 * MEGABYTE + 64 * size


class Limits:
    """The limits of this process. Create them after all imports."""

    def __init__(self) -> None:
        self._own = _address_space() if resource else 0
        self._room = 0
        if resource:
            for name, most in (("CORE", 0), ("FSIZE", 0), ("NPROC", 0), ("NOFILE", _FILES)):
                kind = getattr(resource, f"RLIMIT_{name}", None)
                if kind is not None:
                    resource.setrlimit(kind, (most, most))
        if hasattr(signal, "setitimer"):
            # The default action ends the process even during a long call in C, where no Python handler would run
            signal.signal(signal.SIGPROF, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGPROF])

    def memory(self, size: int) -> None:
        """Limit the address space to its size before the first request, plus room for a request of `size` bytes.

        The room never shrinks, because memory of a large request may not be returned to the system.
        """
        if self._own:
            self._room = max(self._room, room(size))
            _, most = resource.getrlimit(resource.RLIMIT_AS)
            limit = self._own + self._room
            resource.setrlimit(
                resource.RLIMIT_AS, (limit if most == resource.RLIM_INFINITY else min(limit, most), most)
            )

    def time(self, messages: int, size: int) -> None:
        """Restart the CPU timer, which ends the process if it expires before the next call."""
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_PROF, seconds(messages, size))


def _address_space() -> int:
    """Return the number of bytes that this process has mapped, or 0 if it is unknown."""
    try:
        return int(Path("/proc/self/statm").read_text("ascii").split()[0]) * resource.getpagesize()
    except OSError:
        return 0
