"""Identify a process, also after it has ended and its number belongs to another one."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """A process on a machine.

    place: the machine, and within it the namespace in which `pid` is a number. started: its start in ticks of the
    system's clock, since numbers are used again; "" if the system does not report it (it is Linux that does).
    """

    pid: int
    host: str
    place: str
    started: str

    @classmethod
    def this(cls) -> Process:
        """Return the current process."""
        host, place = socket.gethostname(), "/proc/self/ns/pid"
        namespace = os.readlink(place) if os.path.lexists(place) else ""
        return cls(os.getpid(), host, f"{host} {namespace}", _status(os.getpid())[1])

    @property
    def ended(self) -> bool:
        """True if the process has ended; False if it is running, or on another machine."""
        if self.place != Process.this().place:
            return False
        if self.started:
            state, started = _status(self.pid)
            return started != self.started or state in ("Z", "X")  # a zombie has ended, and nobody asked for its status
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass
        return False

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def _status(pid: int) -> tuple[str, str]:
    """Return state and start of a process from /proc; empty texts if there is none."""
    try:
        # The second field is the name of the program in parentheses, and may contain spaces.
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except OSError:
        return "", ""
    return fields[0], fields[19]
