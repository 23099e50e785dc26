"""Distinguish paths from hub ids, and suggest corrections of paths, without torch and without the network."""

from __future__ import annotations

import difflib
import re
import sysconfig
from collections.abc import Collection, Iterable
from pathlib import Path

COMMON = {".json", ".jsonl", ".ndjson", ".parquet", ".csv", ".tsv", ".arrow", ".txt", ".md"}
"""Endings that the default reader of files reads. Another plugin reads them only if `plugins:` names it."""
COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
"""Endings that may follow a common one."""
ENDINGS = {*COMMON, *COMPRESSIONS, ".xlsx", ".py", ".zip", ".tar"}
"""Endings of data files. A path with one of them is not a hub id."""
FILE, HUB = "file", "hub"

_UNEXPANDED = re.compile(r"^~[\w.-]*(?=/|$)|\$\{\w+\}|\$[A-Za-z_]\w*")


def unexpanded(path: str) -> str | None:
    """Return the first part of a path that only a shell expands: `~`, `~user`, `$NAME` or `${NAME}`; None if none."""
    match = _UNEXPANDED.search(path)
    return match[0] if match else None


def source_of(path: str, revision: str | None = None, endings: Collection[str] = ()) -> str:
    """Return the kind of place that the path of a dataset names: file, hub, or the scheme of a URL in lower case.

    `endings` are those of files that installed plugins read, in addition to ENDINGS.
    """
    scheme, separator, _ = path.partition("://")
    if separator:
        return scheme.lower()
    try:
        exists = Path(path).exists()
    except OSError:
        exists = True  # the path is too long; the error of opening it says so
    return HUB if not exists and not ending_of(path, endings) and is_hub_id(path, revision) else FILE


def ending_of(path: str, endings: Iterable[str]) -> str | None:
    """Return the longest of some endings that a path has; None if it has none of them."""
    return max((ending for ending in endings if path.lower().endswith(ending)), key=len, default=None)


def is_common(path: str) -> bool:
    """Return True for a file, compressed or not, that the default reader of files reads."""
    name = path.lower()
    compression = ending_of(name, COMPRESSIONS) or ""
    return Path(name.removesuffix(compression)).suffix in COMMON


def is_hub_id(path: str, revision: str | None = None) -> bool:
    """Return True if a path that does not exist is a hub id: `name` or `owner/name`.

    It is a path if it ends like a data file, or begins with a dot or a slash. It is also a path if the working folder
    contains a folder `owner`, unless the entry sets a revision, which only a hub id can have.
    """
    if not re.fullmatch(r"[\w-][\w.-]{,95}(/[\w.-]{1,96})?", path) or Path(path).suffix.lower() in ENDINGS:
        return False
    return revision is not None or "/" not in path or not Path(path).parent.is_dir()


def is_library_file(path: Path) -> bool:
    """Return True for a file of Python's standard library or of an installed package.

    Such a file was not written for the run, and running one of its functions on rows may do anything.
    """
    path = path.resolve()
    folders = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    installed = {"site-packages", "dist-packages"} & set(path.parts)
    return bool(installed) or any(path.is_relative_to(Path(folder).resolve()) for folder in folders)


def advice(path: str, folders: bool = False) -> str:
    """Return what to write instead of a path that does not exist; with `folders`, suggest only folders."""
    if "$" in path or path.startswith("~"):
        return "~ and environment variables are not expanded: write the full path"
    parent = _existing_parent(path)
    if parent is None:
        return "the path is relative to the working folder"
    if (close := nearest(path, folders)) is not None:
        return f"did you mean {close}?"
    kind, where = "folders" if folders else "files", "the working folder" if parent == Path() else parent
    return f"{kind} in {where}: {', '.join(_names(parent, folders)[:5]) or 'none'}"


def nearest(path: str, folders: bool = False) -> Path | None:
    """Return the path with its first missing part replaced by the closest existing name, or None if none is close."""
    parent = _existing_parent(path)
    if parent is None:
        return None
    first, *rest = Path(path).relative_to(parent).parts or ("",)
    matches = difflib.get_close_matches(first, _names(parent, folders or bool(rest)), 1)
    return parent.joinpath(matches[0], *rest) if matches else None


def _existing_parent(path: str) -> Path | None:
    """Return the innermost folder above a path that exists."""
    return next((p for p in Path(path).parents if p.is_dir()), None)


def _names(folder: Path, folders: bool) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if not p.name.startswith(".") and (p.is_dir() or not folders))
