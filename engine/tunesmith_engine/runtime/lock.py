"""Let only one run at a time write to an output folder."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

from tunesmith.errors import EnvironmentProblem
from tunesmith.run import Run
from tunesmith_engine.runtime.process import Process

NAME = ".lock"
ATTEMPTS = 50
PAUSE = 0.1
"""Seconds between attempts, while another process is taking or releasing the lock."""


def take(run: Run) -> None:
    """Lock output_dir until the run ends. Call it on all processes, which share the lock of the main one.

    The system releases the lock of a process that is killed. Raises EnvironmentProblem on all processes if another run
    has the folder.
    """
    problem = None
    if run.world.main:
        try:
            taken = _take(run.output_dir)
            problem = taken if isinstance(taken, tuple) else None
            if isinstance(taken, int):
                run.closing.append(partial(_release, run.output_dir / NAME, taken))
        except OSError as error:
            help = "choose a place with room, and with write permission"
            problem = (f"{run.output_dir} could not be locked: {error.strerror}", help)
    problem = run.world.gather(problem)[0]
    if problem is not None:
        message, help = problem
        raise EnvironmentProblem(message, where=run.config.place("output_dir"), help=help, code="in-use")


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock the folder of a run for the block. Raises EnvironmentProblem if a run has it."""
    try:
        taken = _take(folder, attempts=3)
    except OSError as error:
        message = f"{folder} could not be locked: {error.strerror}"
        raise EnvironmentProblem(message, help="check its permissions", code="in-use") from error
    if isinstance(taken, tuple):
        raise EnvironmentProblem(taken[0], help=taken[1], code="in-use")
    try:
        yield
    finally:
        _release(folder / NAME, taken)


def holder(folder: Path) -> Process | None:
    """Return the process of the run that has a folder; None if no run has it, or if its process has ended."""
    try:
        handle = os.open(folder / NAME, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        process = _holder(handle)
    finally:
        os.close(handle)
    return None if process is None or process.ended else process


def _take(folder: Path, attempts: int = ATTEMPTS) -> int | tuple[str, str]:
    """Lock a folder, and return the open file, to be released. Return message and help if that is not possible."""
    path = folder / NAME
    for _ in range(attempts):
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        holder = _holder(handle)
        if _lock(handle, holder) and _is_at(path, handle):
            content = json.dumps(asdict(Process.this())).encode()
            os.ftruncate(handle, 0)
            os.pwrite(handle, content, 0)
            return handle
        if holder is not None and not holder.ended and _is_at(path, handle):
            os.close(handle)
            message = f"{folder} is in use by another run, {holder}"
            return message, f"wait for it, choose another output_dir, or delete {path} if that run is gone"
        if holder is not None and holder.ended and _is_at(path, handle):
            path.unlink(missing_ok=True)  # a child of the run that was killed has the lock, and will end soon
        os.close(handle)
        time.sleep(PAUSE)
    return f"{folder} is in use by another run", f"wait for it, or delete {path} if it is gone"


def _lock(handle: int, holder: Process | None) -> bool:
    """Lock a file, and return True if that worked. A file system without locks leaves the decision to its content."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return holder is None or holder.ended
    return True


def _is_at(path: Path, handle: int) -> bool:
    """Return True if an open file is still the one of the path: not deleted by the run that had the lock."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except FileNotFoundError:
        return False


def _holder(handle: int) -> Process | None:
    try:
        return Process(**json.loads(os.pread(handle, 4096, 0)))
    except (ValueError, TypeError):  # empty: just created, or being written
        return None


def _release(path: Path, handle: int) -> None:
    with contextlib.suppress(OSError):
        if _is_at(path, handle):
            path.unlink()
        fcntl.flock(handle, fcntl.LOCK_UN)  # also for children that inherited the file
    os.close(handle)
