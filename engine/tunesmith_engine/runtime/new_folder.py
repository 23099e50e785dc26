"""Write a folder that is complete or absent."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from tunesmith.errors import EnvironmentProblem
from tunesmith_engine.runtime.atomic import flush


@contextlib.contextmanager
def new_folder(out: Path, keep: type[BaseException] | tuple[type[BaseException], ...] = ()) -> Iterator[Path]:
    """Yield the folder NAME.partial, which becomes `out` if the block succeeds, and is deleted if it fails.

    A process that is killed leaves it, and the next one empties it.

    Args:
        out: the folder to write. It must not exist, or be empty.
        keep: errors after which the partial folder stays for inspection.

    Raises EnvironmentProblem if the disk refuses the files, or if another process is writing them.
    """
    partial = out.with_name(f"{out.name}.partial")
    try:
        partial.mkdir(parents=True, exist_ok=True)
        with _claimed(partial, out):
            try:
                yield partial
                for path in partial.iterdir():
                    flush(path)
                flush(partial)
                if out.is_dir():
                    out.rmdir()
                partial.rename(out)
                flush(out.parent)
            except BaseException as error:
                if not isinstance(error, keep):
                    shutil.rmtree(partial, ignore_errors=True)
                raise
    except OSError as error:
        message = f"{out} could not be written: {error.strerror or error}"
        help = "make room, or write --output with another place"
        raise EnvironmentProblem(message, code="disk", help=help) from error


@contextlib.contextmanager
def _claimed(partial: Path, out: Path) -> Iterator[None]:
    """Empty a folder that no other process has locked; the system releases the lock of a process that is killed."""
    handle = os.open(partial, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            message = f"{out} is being written by another process"
            raise EnvironmentProblem(message, code="in-use", help="wait for it, or write another --output") from None
        for path in partial.iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        yield
    finally:
        os.close(handle)
