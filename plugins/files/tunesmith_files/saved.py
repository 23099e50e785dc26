"""Folders that the datasets library saved: one dataset, or one for each of several splits."""

from __future__ import annotations

import json
from typing import Any

from tunesmith import DataError
from tunesmith_files.lines import LIMIT
from tunesmith_files.local import LocalFile, LocalFolder
from tunesmith_files.remote import RemoteFile, RemoteFolder
from tunesmith_files.splits import TRAIN, Split

SPLITS, STATE, INFO = "dataset_dict.json", "state.json", "dataset_info.json"
DESCRIPTIONS = {SPLITS, INFO, "dataset_infos.json"}
"""Files beside the rows, which have none."""
Folder = LocalFolder | RemoteFolder


def saved_files(folder: Folder, split: Split) -> list[LocalFile | RemoteFile] | None:
    """The files of a split of a saved dataset; None for any other folder. Raises DataError."""
    if folder.has(SPLITS):
        names = _read(folder, SPLITS).get("splits")
        names = [n for n in names if isinstance(n, str)] if isinstance(names, list) else []
        if split.name not in names:
            help = f"it has {', '.join(names)}: write split: {names[0]}" if names else f"{SPLITS} names none"
            raise split.error(f"{folder.label} has no split {split.name!r}", help)
        below = folder.folder(_plain(folder, split.name))
        if not below.has(STATE):
            raise _damaged(folder, f"the folder of {split.name} has no {STATE}")
        return _files_of(below, _read(below, STATE))
    if not folder.has(STATE) or not folder.has(INFO):
        return None
    state = _read(folder, STATE)
    own = state.get("_split")
    if split.name not in (TRAIN, own):
        raise split.error(f"{folder.label} has no split {split.name!r}", f"it has {own or TRAIN}")
    return _files_of(folder, state)


def _files_of(folder: Folder, state: dict[str, Any]) -> list[LocalFile | RemoteFile]:
    """The files that the state of one dataset names."""
    named = state.get("_data_files")
    files = [f.get("filename") if isinstance(f, dict) else None for f in named] if isinstance(named, list) else []
    if not files:
        raise _damaged(folder, f"{STATE} names no files")
    for name in files:
        if not folder.has(_plain(folder, name)):
            raise _damaged(folder, f"{name} is missing")
    return [folder.file(str(name)) for name in files]


def _plain(folder: Folder, name: Any) -> str:
    """A name that stays within the folder."""
    if not isinstance(name, str) or not name or name in (".", "..") or "/" in name or "\\" in name:
        raise _damaged(folder, f"{name!r} is not the name of a file in it")
    return name


def _read(folder: Folder, name: str) -> dict[str, Any]:
    with folder.file(name).open() as file:
        try:
            found = json.loads(file.read(LIMIT))
        except (ValueError, RecursionError) as error:
            raise _damaged(folder, f"{name} is no JSON") from error
    if not isinstance(found, dict):
        raise _damaged(folder, f"{name} is no JSON object")
    return found


def _damaged(folder: Folder, what: str) -> DataError:
    help = "save or copy it again, whole; or take its .arrow files by data_files"
    return DataError(f"is no whole saved dataset: {what}", where=folder.label, code="broken-arrow", help=help)
