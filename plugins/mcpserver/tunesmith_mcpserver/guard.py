"""Refuse, in the process of a tool, to write files, to use the network, to start programs, and to run code of files.

The tools do none of that. The guard makes sure of it, whatever a config, a model or a library asks for. It is an audit
hook of Python: it sees what Python does, not what native code does by itself.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = {
    "os.chmod", "os.chown", "os.link", "os.mkdir", "os.remove", "os.removexattr", "os.rename", "os.rmdir",
    "os.setxattr", "os.symlink", "os.truncate", "os.utime", "shutil.copyfile", "shutil.move", "shutil.rmtree",
    "tempfile.mkdtemp", "tempfile.mkstemp",
}  # fmt: skip
NETWORK = {"socket.connect", "socket.bind", "socket.getaddrinfo", "socket.sendto", "socket.sendmsg"}
PROGRAMS = {"os.exec", "os.posix_spawn", "os.spawn", "os.system", "os.startfile"}


class Refused(PermissionError):
    """The guard refused an action. Libraries treat it as a missing permission."""

    def as_error(self) -> Any:
        """Return the error of Tunesmith for it."""
        from tunesmith.errors import SafetyError

        help = "run the command of the same name in a terminal"
        return SafetyError(f"this server only reads: {self}", code="safety", help=help)


def install() -> None:
    """Install the guard for the rest of the process."""
    # Otherwise the first library that asks for the folder of temporary files tries it, by writing a file.
    tempfile.tempdir = os.environ.get("TMPDIR", "/tmp")
    folders = [os.path.realpath(path) for path in (*sys.path, sys.prefix, sys.base_prefix) if path]
    allowed = tuple(folder.rstrip(os.sep) + os.sep for folder in folders)
    judge = judge_of(allowed)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if reason := judge(event, arguments):
            raise Refused(reason)

    sys.addaudithook(hook)


def judge_of(allowed: tuple[str, ...]) -> Callable[[str, tuple[Any, ...]], str | None]:
    """Return a function that says why an event is refused, or None. `allowed`: the folders whose code may run."""

    def judge(event: str, arguments: tuple[Any, ...]) -> str | None:
        if event == "open":
            path, _, flags = arguments
            written = (
                not isinstance(path, int) and flags & WRITES and os.fspath(path) not in ("/dev/null", b"/dev/null")
            )
            return f"{os.fspath(path)!r} would be written" if written else None
        if event == "exec":
            name = getattr(arguments[0], "co_filename", "")
            if name.startswith("<") or os.path.realpath(name).startswith(allowed) or not Path(name).is_file():
                return None
            return f"the code of {name} would run"
        if event == "subprocess.Popen":
            return None if str(arguments[0]) == sys.executable else f"{arguments[0]} would be started"
        if event in CHANGES:
            return f"{event} of {arguments[:1]} would change files"
        return f"{event} is not allowed" if event in NETWORK or event in PROGRAMS else None

    return judge
