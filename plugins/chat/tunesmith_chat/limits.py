"""What a chat template may take, and how the process that renders is held to it. Standard library only.

Time is CPU time, so a slow or busy machine is no fault of a template. The limits are for templates in the sandbox; they
are no cage for one that broke out of it, which would find an empty environment, and could write to no file and start no
process, but runs as the user. Where there is no `resource` (Windows), time is held by the parent alone, which ends the
child at `deadline`. Memory is held where there is /proc/self/statm (Linux).
"""

from __future__ import annotations

import signal
from pathlib import Path

try:
    import resource
except ImportError:
    resource = None  # type: ignore[assignment]

OUT_OF_MEMORY = 77
"""Exit status of a child that ran into its memory limit."""
MEGABYTE = 1 << 20
_FILES = 8  # the three pipes, and what Python opens to import a module


def seconds(messages: int, size: int) -> int:
    """CPU seconds for a conversation: 2, and more for a long one, which is rendered once or twice for each turn."""
    return 2 * (1 + messages // 100 + size // (10 * MEGABYTE))


def deadline(messages: int, size: int) -> int:
    """Seconds of real time until the parent stops waiting: of a child that sleeps, or that has no CPU limit."""
    return 15 * seconds(messages, size)


def room(size: int) -> int:
    """Bytes of memory for a request of `size` bytes: 16 MB, and 16 copies of it at 4 bytes a character."""
    return 16 * MEGABYTE + 64 * size


class Limits:
    """The limits of this process; made once everything is imported."""

    def __init__(self) -> None:
        self._own = _address_space() if resource else 0
        self._room = 0
        if resource:
            for name, most in (("CORE", 0), ("FSIZE", 0), ("NPROC", 0), ("NOFILE", _FILES)):
                kind = getattr(resource, f"RLIMIT_{name}", None)
                if kind is not None:
                    resource.setrlimit(kind, (most, most))
        if hasattr(signal, "setitimer"):
            # Whatever the parent does with this signal, here it ends the process, also amid one long call in C
            signal.signal(signal.SIGPROF, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGPROF])

    def memory(self, size: int) -> None:
        """Hold what the process maps to what it had before the first request, and room for one of `size` bytes.

        Or for the largest so far: what that one took is not all given back.
        """
        if self._own:
            self._room = max(self._room, room(size))
            _, most = resource.getrlimit(resource.RLIMIT_AS)
            limit = self._own + self._room
            resource.setrlimit(
                resource.RLIMIT_AS, (limit if most == resource.RLIM_INFINITY else min(limit, most), most)
            )

    def time(self, messages: int, size: int) -> None:
        """End the process unless this is called again within the CPU time of a conversation."""
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_PROF, seconds(messages, size))


def _address_space() -> int:
    """Bytes that this process has mapped; 0 where that can't be known."""
    try:
        return int(Path("/proc/self/statm").read_text("ascii").split()[0]) * resource.getpagesize()
    except OSError:
        return 0
