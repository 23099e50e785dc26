"""The process that runs code of a model: it fences itself in, and then runs the code and its tests.

It runs as a script with `python -I -S`, and imports nothing but the standard library and kernel.py beside it. It ends
with status 97 and a message if it can't be fenced.
"""

from __future__ import annotations

import builtins
import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

NOT_FENCED = 97
FILE_SIZE = 16 << 20  # bytes of each file
OPEN_FILES = 64
THREADS = 64  # also processes, where the kernel counts those of a user namespace
CHANGES = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod",
           "os.chown", "os.utime", "shutil.rmtree")  # fmt: skip
"""Audit events with paths, of which only those below the working folder are allowed."""
FORBIDDEN = ("socket.", "subprocess.", "os.fork", "os.exec", "os.spawn", "os.posix_spawn", "os.system", "os.kill",
             "os.startfile", "ctypes.", "pty.", "signal.pthread_kill")  # fmt: skip
"""Beginnings of the names of audit events that are never allowed."""
LIBRARIES = (os.path.realpath(sys.base_prefix) + os.sep, os.devnull, "/dev/urandom")
"""Beginnings of paths outside the working folder that the audit hook allows to read."""


def set_limits(seconds: float, memory: int, own_namespace: bool) -> None:
    """Limit CPU time, memory, the size of files, open files and threads, and end this process after that time."""
    import resource

    def limit(name: str, value: int) -> None:
        with contextlib.suppress(ValueError, OSError, AttributeError):  # not on every system, or lower already
            resource.setrlimit(getattr(resource, name), (value, value))

    limit("RLIMIT_CPU", int(seconds) + 1)
    limit("RLIMIT_AS", memory)
    limit("RLIMIT_DATA", memory)
    limit("RLIMIT_FSIZE", FILE_SIZE)
    limit("RLIMIT_NOFILE", OPEN_FILES)
    limit("RLIMIT_CORE", 0)
    if own_namespace:  # elsewhere, all processes of the user count
        limit("RLIMIT_NPROC", THREADS)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def audit() -> Callable[[str, tuple[Any, ...]], None]:
    """Return an audit hook that refuses what leads out of the process. Code that uses ctypes tricks can avoid it."""
    folder, active = os.path.realpath(os.getcwd()), [False]

    def inside(path: Any) -> bool:
        if not isinstance(path, str | bytes | os.PathLike):
            return isinstance(path, int)  # an open file
        real = os.path.realpath(os.fsdecode(path))
        return real in (folder, os.devnull) or real.startswith(folder + os.sep)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if active[0]:
            return
        active[0] = True
        try:
            if event.startswith(FORBIDDEN):
                raise PermissionError(f"{event} is not allowed here")
            if event in CHANGES:
                paths = arguments[:1] if event != "os.rename" else arguments[:2]
                flags = arguments[2] if event == "open" and len(arguments) > 2 else os.O_WRONLY
                reads = event == "open" and not (isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR))
                if reads and not inside(paths[0]) and not os.path.realpath(paths[0]).startswith(LIBRARIES):
                    raise PermissionError(f"{paths[0]} is outside the working folder")
                if not reads and not all(map(inside, paths)):
                    raise PermissionError(f"{event} of {paths[0]} is outside the working folder")
        finally:
            active[0] = False

    return hook


def fence(job: dict[str, Any]) -> None:
    """Fence this process in. End it with status 97 if the job needs fences of the kernel that are missing."""
    problems: list[str] = []
    own_namespace = False
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    try:
        import kernel
    except ImportError as error:  # no ctypes
        problems.append(f"{error}")
    else:
        own_namespace, problems = kernel.isolate()
        del sys.modules["kernel"]  # the code may have a module of this name
    sys.path.pop(0)
    if problems and job["kernel"]:
        print("; ".join(problems), file=sys.stderr, flush=True)
        os._exit(NOT_FENCED)
    set_limits(job["seconds"], job["memory"], own_namespace)
    if problems:
        sys.addaudithook(audit())


def main() -> None:
    """Run the job in the working folder: its source as a script, or its source and then each assert statement."""
    with open("job.json", encoding="utf-8") as file:
        job = json.load(file)
    os.unlink("job.json")
    sys.argv = ["solution.py"]
    builtins.exit = builtins.quit = sys.exit  # which the module site would do
    nowhere = os.open(os.devnull, os.O_RDWR)
    fence(job)
    os.dup2(nowhere, 2)
    asserts = job.get("asserts")
    if asserts is None:
        namespace = {"__name__": "__main__", "__builtins__": __builtins__}
        exec(compile(job["source"], "solution.py", "exec"), namespace)
        return
    results = os.fdopen(os.dup(1), "w")
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 0)
    namespace = {"__name__": "solution", "__builtins__": __builtins__}
    try:
        exec(compile(job["source"], "solution.py", "exec"), namespace)
    except BaseException:
        os._exit(1)
    for number, test in enumerate(asserts):
        with contextlib.suppress(BaseException):
            exec(compile(test, "test.py", "exec"), namespace)
            print(job["mark"], number, file=results, flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
