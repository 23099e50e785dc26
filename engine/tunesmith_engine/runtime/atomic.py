"""Write files and folders that are complete or absent: under a temporary name, flushed, with sha256, then renamed."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from safetensors import safe_open

from tunesmith.errors import EnvironmentProblem, PluginError, TunesmithError

MANIFEST = "manifest.json"
Entry = dict[str, int | str]
"""Size and sha256 of a file in a manifest."""
OURS = re.compile(r"\.(checkpoint-\d+|final|run\.json)\.(partial|old)")
OF_THE_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG}
"""Error numbers of a disk that is full or fails."""
OF_THE_PLACE = {errno.EACCES, errno.EPERM, errno.EEXIST, errno.ENOTDIR, errno.ENAMETOOLONG}
"""Error numbers that concern the disk only if they are about the place that is written. For another file, they are an
error of the plugin that opened it."""


def write_text(path: Path, text: str) -> None:
    """Replace a file at once: after a power cut it contains either the old text or the new one."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    flush(partial)
    os.replace(partial, path)


def flush(path: Path) -> None:
    """Write a file, or the names in a folder, from the cache of the system to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal(partial: Path, final: Path, files: dict[str, Entry] | None = None, **facts: bool) -> None:
    """Write the manifest of a folder last, and rename the folder to `final`.

    In this order, a power cut at any point leaves no folder named `final` with missing or partial files. `files` are
    those that `listed` has flushed; by default all. `facts` are kept in the manifest.
    """
    files = listed(partial, partial.rglob("*")) if files is None else files
    for folder in (path for path in partial.iterdir() if path.is_dir()):
        flush(folder)
    write_text(partial / MANIFEST, json.dumps({"format": 1, **facts, "files": files}, indent=1))
    flush(partial)
    if final.exists():  # a folder can't be renamed onto one that has files
        discard(final)
    partial.rename(final)
    flush(final.parent)


def listed(folder: Path, paths: Iterable[Path]) -> dict[str, Entry]:
    """Flush files and folders in a folder, and return size and sha256 of each file by its path in it."""
    files: dict[str, Entry] = {}
    for path in sorted(paths):
        flush(path)
        if path.is_file():
            files[path.relative_to(folder).as_posix()] = {"bytes": path.stat().st_size, "sha256": sha256(path)}
    return files


def extend(final: Path, partial: Path, **facts: bool) -> None:
    """Move everything from `partial` into a sealed folder, then replace its manifest by one that lists all files.

    In this order, the folder is valid at any point: files that its manifest does not list yet do not count. Raises
    PluginError for a file that the folder has already.
    """
    manifest = json.loads((final / MANIFEST).read_text("utf-8"))
    files = listed(partial, partial.rglob("*"))
    if both := sorted(files.keys() & {*manifest["files"], MANIFEST}):
        message = f"save_model wrote {both[0]}, which is a file of the checkpoint itself"
        raise PluginError(message, help="write it under another name")
    move(partial, final)
    write_text(final / MANIFEST, json.dumps({**manifest, **facts, "files": manifest["files"] | files}, indent=1))
    flush(final)


def move(partial: Path, folder: Path) -> None:
    """Move the files and folders in `partial` into `folder`, one by one, and delete `partial`."""
    for path in sorted(partial.iterdir()):
        target = folder / path.name
        if target.is_dir():
            shutil.rmtree(target)
        os.replace(path, target)
    partial.rmdir()
    flush(folder)


def read_again(folder: Path) -> None:
    """Parse every .json and every .safetensors header in a folder. Raises EnvironmentProblem if one is damaged."""
    for path in sorted(folder.rglob("*")):
        try:
            if path.suffix == ".json":
                json.loads(path.read_text("utf-8"))
            elif path.suffix == ".safetensors":
                with safe_open(path, "np") as file:
                    file.keys()
        except Exception as error:
            message = f"{path.name} was written, but can't be read back: {error}"
            raise EnvironmentProblem(message, code="disk", help="check the disk, then start again") from error


def discard(folder: Path) -> None:
    """Rename a folder, then delete it, so that it never exists in part. `tidy` deletes what this could not delete."""
    trash = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(trash, ignore_errors=True)
    folder.rename(trash)
    shutil.rmtree(trash, ignore_errors=True)


def tidy(folder: Path) -> None:
    """Delete temporary files and folders that an interrupted save or deletion left behind."""
    for path in folder.glob(".*"):
        if OURS.fullmatch(path.name):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def why_invalid(folder: Path) -> str | None:
    """Return why a sealed folder is invalid, or None if every file matches its manifest."""
    try:
        files = {
            name: (int(entry["bytes"]), str(entry["sha256"]))
            for name, entry in json.loads((folder / MANIFEST).read_text("utf-8"))["files"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return "has no readable manifest"
    for name, (size, digest) in files.items():
        path = folder / name
        # The manifest is untrusted: a name must not lead out of the folder, directly or through a link.
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
    """Turn errors of the disk within the block, which writes to `place`, into an EnvironmentProblem."""
    try:
        yield
    except Exception as error:
        if reason := os_error_reason(error, place):
            message = f"{what} could not be written: {reason}"
            raise EnvironmentProblem(message, where=where, code="disk", help=help) from error
        raise


@contextlib.contextmanager
def clearing(folder: Path, main: bool) -> Iterator[None]:
    """Delete a folder if the block that writes it fails. Only the main process deletes."""
    try:
        yield
    except Exception:
        if main:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def os_error_reason(error: BaseException | None, place: Path) -> str | None:
    """Return the reason of the disk error behind an exception, or None if it has another cause.

    A library may have wrapped the error several times. Rust libraries, such as safetensors, have its number in the
    text only.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:  # an exception may be among its own causes
        seen.add(id(error))
        number = error.errno if isinstance(error, OSError) else None
        file = getattr(error, "filename", None)
        if number is None and (match := re.search(r"\(os error (\d+)\)", str(error))):
            number = int(match[1])
        here = file is None or Path(os.fsdecode(file)).absolute().is_relative_to(place.absolute())
        if number in OF_THE_DISK or (number in OF_THE_PLACE and here):
            return os.strerror(number)
        error = error.__cause__ or (None if isinstance(error, TunesmithError) else error.__context__)
    return None
