"""Refuse, in the process of a tool, to write files, to use the network, to start programs, and to run code of files.

The tools do none of that. The guard makes sure of it, whatever a config, a model or a library asks for. It is an audit
hook of Python: it sees what Python does, not what native code does by itself. Files may be written in one empty folder,
the scratch folder of the process: data that a plan prepares is there.
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
IN_SCRATCH = {
    "os.mkdir": ((0, 2),), "os.remove": ((0, 1),), "os.rmdir": ((0, 1),), "os.rename": ((0, 2), (1, 3)),
    "shutil.rmtree": ((0, 1),), "tempfile.mkdtemp": ((0, None),), "tempfile.mkstemp": ((0, None),),
}  # fmt: skip
"""Changes that are allowed in the scratch folder: which arguments are a path, and the open folder that it begins at."""
NETWORK = {"socket.connect", "socket.bind", "socket.getaddrinfo", "socket.sendto", "socket.sendmsg"}
PROGRAMS = {"os.exec", "os.posix_spawn", "os.spawn", "os.system", "os.startfile"}


class Refused(PermissionError):
    """The guard refused an action. Libraries treat it as a missing permission."""

    def as_error(self) -> Any:
        """Return the error of Tunesmith for it."""
        from tunesmith.errors import SafetyError

        help = "run the command of the same name in a terminal"
        return SafetyError(f"this server only reads: {self}", code="safety", help=help)


def install(scratch: str) -> None:
    """Install the guard for the rest of the process, whose temporary files go to the scratch folder."""
    tempfile.tempdir = scratch
    folders = [os.path.realpath(path) for path in (*sys.path, sys.prefix, sys.base_prefix) if path]
    allowed = tuple(folder.rstrip(os.sep) + os.sep for folder in folders)
    judge = judge_of(allowed, os.path.realpath(scratch))

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if reason := judge(event, arguments):
            raise Refused(reason)

    sys.addaudithook(hook)


def judge_of(allowed: tuple[str, ...], scratch: str | None = None) -> Callable[[str, tuple[Any, ...]], str | None]:
    """Return a function that says why an event is refused, or None.

    allowed: the folders whose code may run. scratch: the folder in which files may be written.
    """

    def is_inside(path: Any, folder: Any = None) -> bool:
        if scratch is None or isinstance(path, int):
            return False
        # A path that begins at an open folder: shutil.rmtree uses them.
        start = f"/proc/self/fd/{folder}" if isinstance(folder, int) and folder >= 0 else ""
        return os.path.realpath(os.path.join(start, os.fsdecode(path))).startswith(scratch + os.sep)

    def at(arguments: tuple[Any, ...], index: int | None) -> Any:
        return arguments[index] if index is not None and index < len(arguments) else None

    def judge(event: str, arguments: tuple[Any, ...]) -> str | None:
        if event == "open":
            path, _, flags = arguments
            written = (
                not isinstance(path, int) and flags & WRITES and os.fspath(path) not in ("/dev/null", b"/dev/null")
            )
            return f"{os.fspath(path)!r} would be written" if written and not is_inside(path) else None
        if event == "exec":
            name = getattr(arguments[0], "co_filename", "")
            if name.startswith("<") or os.path.realpath(name).startswith(allowed) or not Path(name).is_file():
                return None
            return f"the code of {name} would run"
        if event == "subprocess.Popen":
            return None if str(arguments[0]) == sys.executable else f"{arguments[0]} would be started"
        if event in CHANGES:
            places = IN_SCRATCH.get(event, ())
            if places and all(is_inside(at(arguments, path), at(arguments, folder)) for path, folder in places):
                return None
            return f"{event} of {arguments[:1]} would change files"
        return f"{event} is not allowed" if event in NETWORK or event in PROGRAMS else None

    return judge
