"""Files that are whole or absent: written beside their place, flushed to disk, listed with sha256, renamed."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from safetensors import safe_open

from tunesmith.errors import EnvironmentProblem, TunesmithError

MANIFEST = "manifest.json"
OURS = re.compile(r"\.(checkpoint-\d+|final|run\.json)\.(partial|old)")
OF_THE_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG}
"""What a disk may answer that is not the program's fault."""
OF_THE_PLACE = {errno.EACCES, errno.EPERM, errno.EEXIST, errno.ENOTDIR, errno.ENAMETOOLONG}
"""The same where it is said of the place that is written to; of another, a plugin asked for it."""


def write_text(path: Path, text: str) -> None:
    """Replace a file in one go: after a power cut it holds the old text or the new one."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    flush(partial)
    os.replace(partial, path)


def flush(path: Path) -> None:
    """Have a file, or the names in a folder, written to the disk itself."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal(partial: Path, final: Path) -> None:
    """Flush a folder and everything in it, write its manifest last, and rename it into place."""
    files = {}
    for path in sorted(partial.rglob("*")):
        flush(path)
        if path.is_file():
            name = path.relative_to(partial).as_posix()
            files[name] = {"bytes": path.stat().st_size, "sha256": sha256(path)}
    write_text(partial / MANIFEST, json.dumps({"format": 1, "files": files}, indent=1))
    flush(partial)
    if final.exists():
        discard(final)
    partial.rename(final)
    flush(final.parent)


def read_again(folder: Path) -> None:
    """Parse what was written: the header of every .safetensors, every .json. Raises EnvironmentProblem."""
    for path in sorted(folder.rglob("*")):
        try:
            if path.suffix == ".json":
                json.loads(path.read_text("utf-8"))
            elif path.suffix == ".safetensors":
                with safe_open(path, "np") as file:
                    file.keys()
        except Exception as error:
            message = f"{path.name} was written, and can't be read again: {error}"
            raise EnvironmentProblem(message, code="disk", help="look after the disk; then start again") from error


def discard(folder: Path) -> None:
    """Delete a folder; it is out of sight first, so that it is never half there. What can't be deleted yet waits for
    `tidy`."""
    trash = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(trash, ignore_errors=True)
    folder.rename(trash)
    shutil.rmtree(trash, ignore_errors=True)


def tidy(folder: Path) -> None:
    """Delete what saves and deletions of ours that were cut short left behind."""
    for path in folder.glob(".*"):
        if OURS.fullmatch(path.name):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def complaint(folder: Path) -> str | None:
    """Why a sealed folder can't be used, or None if every file is as its manifest says."""
    try:
        files = {
            name: (int(entry["bytes"]), str(entry["sha256"]))
            for name, entry in json.loads((folder / MANIFEST).read_text("utf-8"))["files"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return "has no readable manifest"
    for name, (size, digest) in files.items():
        path = folder / name
        parts = PurePosixPath(name).parts
        if not parts or parts[0] == "/" or ".." in parts or path.resolve() != folder.resolve() / name:
            return f"{name} is not inside it"
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size or sha256(path) != digest:
            return f"{name} is damaged"
    return None


@contextlib.contextmanager
def writing(what: str, place: Path, help: str, where: str | None = None) -> Iterator[None]:
    """Around writes to `place`: what the disk refuses there is an EnvironmentProblem."""
    try:
        yield
    except Exception as error:
        if reason := refusal(error, place):
            message = f"{what} could not be written: {reason}"
            raise EnvironmentProblem(message, where=where, code="disk", help=help) from error
        raise


@contextlib.contextmanager
def clearing(folder: Path, main: bool) -> Iterator[None]:
    """Around the making of a folder: half of it does not stay, if this is the process that cleans up."""
    try:
        yield
    except Exception:
        if main:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def refusal(error: BaseException | None, place: Path) -> str | None:
    """What the disk answered, if that is what an error comes from: a library may have wrapped it several times."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        number = error.errno if isinstance(error, OSError) else None
        file = getattr(error, "filename", None)
        if number is None and (found := re.search(r"\(os error (\d+)\)", str(error))):  # as Rust says it
            number = int(found[1])
        here = file is None or Path(os.fsdecode(file)).absolute().is_relative_to(place.absolute())
        if number in OF_THE_DISK or (number in OF_THE_PLACE and here):
            return os.strerror(number)
        error = error.__cause__ or (None if isinstance(error, TunesmithError) else error.__context__)
    return None
