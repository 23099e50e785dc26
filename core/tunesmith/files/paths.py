"""Paths and hub ids told apart, and what was probably meant by a path that leads nowhere. Neither torch nor network."""

from __future__ import annotations

import difflib
import functools
import re
import sysconfig
from pathlib import Path

ENDINGS = {
    ".json", ".jsonl", ".parquet", ".csv", ".tsv", ".txt", ".md", ".xlsx", ".arrow", ".py", ".gz", ".bz2", ".xz",
    ".zst", ".zip", ".tar",
}  # fmt: skip
"""Endings of data files, which no hub id has."""
FILE, HUB = "file", "hub"


def source_of(path: str, revision: str | None = None) -> str:
    """Where the path of a dataset leads: file, hub, or the scheme of a URL in small letters (s3, https, ...)."""
    scheme, found, _ = path.partition("://")
    if found:
        return scheme.lower()
    try:
        here = Path(path).exists()
    except OSError:
        here = True  # too long for a file system, which says so
    return HUB if not here and is_hub_id(path, revision) else FILE


def is_hub_id(path: str, revision: str | None = None) -> bool:
    """Whether a path that is not there is a hub id: `name` or `owner/name`.

    It is none if it ends as a data file does, if it begins with a dot or a slash, or if there is a folder `owner`
    here; but a revision is said of nothing else than a hub id.
    """
    if not re.fullmatch(r"[\w-][\w.-]{,95}(/[\w.-]{1,96})?", path) or Path(path).suffix.lower() in ENDINGS:
        return False
    return revision is not None or "/" not in path or not Path(path).parent.is_dir()


@functools.cache
def _library_folders() -> tuple[Path, ...]:
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    return tuple({Path(sysconfig.get_path(name)).resolve() for name in names})


def is_library_file(path: Path) -> bool:
    """Return True for a file of Python's standard library or of an installed package.

    Such a file was not written for the run, and running one of its functions on rows may do anything.
    """
    path = path.resolve()
    installed = {"site-packages", "dist-packages"} & set(path.parts)
    return bool(installed) or any(path.is_relative_to(folder) for folder in _library_folders())


def advice(path: str, folders: bool = False) -> str:
    """What to write instead of a path that leads nowhere; with `folders`, only folders are proposed."""
    if "$" in path or path.startswith("~"):
        return "neither ~ nor environment variables are looked up: write the path out"
    above = _above(path)
    if above is None:
        return "the path is relative to the working folder"
    if (near := nearest(path, folders)) is not None:
        return f"did you mean {near}?"
    what, where = "folders" if folders else "files", "the working folder" if above == Path() else above
    return f"{what} in {where}: {', '.join(_names(above, folders)[:5]) or 'none'}"


def nearest(path: str, folders: bool = False) -> Path | None:
    """A path with the nearest spelling of its first part that is not there; None if none is near."""
    above = _above(path)
    if above is None:
        return None
    first, *rest = Path(path).relative_to(above).parts or ("",)
    close = difflib.get_close_matches(first, _names(above, folders or bool(rest)), 1)
    return above.joinpath(close[0], *rest) if close else None


def _above(path: str) -> Path | None:
    """The folder that is there, of those above a path that is not."""
    return next((p for p in Path(path).parents if p.is_dir()), None)


def _names(folder: Path, folders: bool) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if not p.name.startswith(".") and (p.is_dir() or not folders))
