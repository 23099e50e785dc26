"""Find the files of folders that the datasets library saved: one dataset, or one for each of several splits."""

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
"""Files that describe a dataset and do not contain rows."""
Folder = LocalFolder | RemoteFolder


def saved_files(folder: Folder, split: Split) -> list[LocalFile | RemoteFile] | None:
    """Return the files of a split of a saved dataset, or None for any other folder. Raise DataError."""
    if folder.has(SPLITS):
        names = _read(folder, SPLITS).get("splits")
        names = [n for n in names if isinstance(n, str)] if isinstance(names, list) else []
        if split.name not in names:
            help = f"it has {', '.join(names)}: write split: {names[0]}" if names else f"{SPLITS} lists no splits"
            raise split.error(f"{folder.label} has no split {split.name!r}", help)
        split_folder = folder.folder(_checked_name(folder, split.name))
        if not split_folder.has(STATE):
            raise _damaged(folder, f"the folder of {split.name} has no {STATE}")
        return _files_of(split_folder, _read(split_folder, STATE))
    if not folder.has(STATE) or not folder.has(INFO):
        return None
    state = _read(folder, STATE)
    own = state.get("_split")
    if split.name not in (TRAIN, own):
        raise split.error(f"{folder.label} has no split {split.name!r}", f"it has {own or TRAIN}")
    return _files_of(folder, state)


def _files_of(folder: Folder, state: dict[str, Any]) -> list[LocalFile | RemoteFile]:
    """Return the files that the state of a dataset lists. Raise DataError."""
    data_files = state.get("_data_files")
    entries = data_files if isinstance(data_files, list) else []
    names = [entry.get("filename") if isinstance(entry, dict) else None for entry in entries]
    if not names:
        raise _damaged(folder, f"{STATE} lists no files")
    for name in names:
        if not folder.has(_checked_name(folder, name)):
            raise _damaged(folder, f"{name} is missing")
    return [folder.file(str(name)) for name in names]


def _checked_name(folder: Folder, name: Any) -> str:
    """Return a name that does not lead out of the folder. Raise DataError for any other."""
    if not isinstance(name, str) or not name or name in (".", "..") or "/" in name or "\\" in name:
        raise _damaged(folder, f"{name!r} is not the name of a file in the folder")
    return name


def _read(folder: Folder, name: str) -> dict[str, Any]:
    with folder.file(name).open() as file:
        try:
            content = json.loads(file.read(LIMIT))
        except (ValueError, RecursionError) as error:
            raise _damaged(folder, f"{name} is not valid JSON") from error
    if not isinstance(content, dict):
        raise _damaged(folder, f"{name} is not a JSON object")
    return content


def _damaged(folder: Folder, what: str) -> DataError:
    help = "save or copy it again; or read its .arrow files with data_files"
    return DataError(f"is not a complete saved dataset: {what}", where=folder.label, code="broken-arrow", help=help)
