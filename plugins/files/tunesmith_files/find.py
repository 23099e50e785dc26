"""Find the files of a dataset entry: one file, a folder, a split of it, or those that match data_files."""

from __future__ import annotations

import re
from functools import partial

from tunesmith import DataError, DatasetSpec, Run, SafetyError
from tunesmith.config.endings import other_endings
from tunesmith.errors import errors_of, raise_together
from tunesmith.files.paths import FILE, advice
from tunesmith.redact import redact
from tunesmith_files import WORD, splits
from tunesmith_files.kinds import KINDS, kind_of
from tunesmith_files.local import LocalFile, LocalFolder, path_of
from tunesmith_files.remote import WEB, RemoteFile, RemoteFolder, check_library, place_of
from tunesmith_files.rows import Data, FileRows
from tunesmith_files.saved import DESCRIPTIONS, INFO, STATE, saved_files

HUB_KEYS = ("name", "revision")
"""Keys of an entry that apply only to datasets on the hub."""
AnyFile = LocalFile | RemoteFile
Folder = LocalFolder | RemoteFolder


def inspect_all(run: Run) -> None:
    """Check all entries that this plugin reads and raise their problems together. There are no remote requests."""
    raise_together(errors_of(partial(_inspect, run, spec) for spec in run.config.entries if spec.reader == WORD))


def _inspect(run: Run, spec: DatasetSpec) -> None:
    if spec.source == FILE:
        rows_of(run, spec)
        return
    check_keys(run, spec)
    _split(run, spec)
    check_library(spec)
    if spec.source in WEB and not spec.settings.data_files:  # a web address names one file
        kind_in(run, spec, RemoteFile(None, spec.settings.path, redact(spec.settings.path), spec.where))


def rows_of(run: Run, spec: DatasetSpec) -> FileRows:
    """Find the files of an entry and return their rows. No file is opened yet.

    Raise DataError, ConfigError or SafetyError.
    """
    check_keys(run, spec)
    split = _split(run, spec)
    place = _local_place(spec) if spec.source == FILE else place_of(spec)
    settings = spec.settings
    if isinstance(place, LocalFolder | RemoteFolder):
        saved = None if settings.data_files or settings.ds_type else saved_files(place, split)
        if saved is not None:
            return FileRows([Data(file, "arrow") for file in saved], split)
        files: list[AnyFile] = [place.file(name) for name in _in_folder(run, spec, place, split)]
    else:
        if settings.data_files:
            key = (spec.group, spec.index, "data_files")
            raise run.config.error(key, f"needs a folder, but {place.label} is a file", "drop data_files")
        if splits.usual_name(split.name) != splits.TRAIN:
            splits.of_split([place.name], split, place.label)
        files = [place]
    data = [Data(file, kind_in(run, spec, file), settings.sample_by) for file in files]
    if settings.sample_by != "line" and not any(item.kind == "text" for item in data):
        raise run.config.error((spec.group, spec.index, "sample_by"), "is for texts (.txt, .md)", "drop sample_by")
    return FileRows(data, split)


def check_keys(run: Run, spec: DatasetSpec) -> None:
    """Raise ConfigError for a key that has no effect on files."""
    for key in HUB_KEYS:
        if getattr(spec.settings, key) is not None:
            message = "is for datasets on the hub, but this one is local"
            if spec.source != FILE:
                message = f"is for datasets on the hub, but this one is read from {spec.source}://"
            raise run.config.error((spec.group, spec.index, key), message, f"drop {key}")


def _split(run: Run, spec: DatasetSpec) -> splits.Split:
    explicit = "split" in spec.settings.model_fields_set
    where = run.config.place((spec.group, spec.index, "split")) if explicit else spec.where
    return splits.parse(spec.settings.split, where)


def _local_place(spec: DatasetSpec) -> LocalFile | LocalFolder:
    """Return the local file or folder of an entry. Raise DataError if there is none."""
    path = path_of(spec.settings.path)
    try:
        if path.is_dir():
            return LocalFolder(path)
        if path.is_file():
            return LocalFile(path)
        exists = path.exists()
    except OSError as error:
        raise DataError(f"path: {error.strerror}", where=spec.where, code="no-file") from error
    if exists:
        message, help = f"{path} is neither a file nor a folder", "rows are read more than once: write them to a file"
        raise DataError(message, where=spec.where, code="no-file", help=help)
    help = advice(str(path))
    if set(str(path)) & set("*?["):
        help = "write the folder in path, and the pattern in data_files"
    raise DataError(f"{path}: no such file or folder", where=spec.where, code="no-file", help=help)


def _in_folder(run: Run, spec: DatasetSpec, folder: Folder, split: splits.Split) -> list[str]:
    """Return the names of the files to read below a folder."""
    settings = spec.settings
    names = _matching_data_files(run, spec, folder) if settings.data_files else _of_known_kind(run, spec, folder)
    if "split" in settings.model_fields_set:
        return splits.of_split(names, split, folder.label)
    other_splits = ", ".join(sorted({s for name in names if (s := splits.split_of(name))} - {splits.TRAIN}))
    if other_splits and not settings.data_files:
        message = f"has files named {other_splits} that are read with the others; write split: train to skip them"
        run.warn((spec.group, spec.index, "path"), message)
    return names


def _of_known_kind(run: Run, spec: DatasetSpec, folder: Folder) -> list[str]:
    if isinstance(folder, RemoteFolder) and spec.source in WEB:
        raise DataError(f"{folder.label}: a web address can't be listed", where=spec.where, code="no-file")
    kinds = {name: kind for name in folder.names() if (kind := kind_of(name)) and not _is_description(name, folder)}
    ds_type = spec.settings.ds_type
    if ds_type:
        kinds = {name: kind for name, kind in kinds.items() if kind == ds_type}
    elif set(kinds.values()) - {"text"}:  # texts next to other files are notes about the data
        kinds = {name: kind for name, kind in kinds.items() if kind != "text"}
    if not kinds:
        of = ds_type or ", ".join(ending for ending, kind in KINDS.items() if kind != "text")
        help = f"it contains {', '.join(folder.here()[:5]) or 'nothing'}"
        help += "; list files with other endings in data_files" if ds_type else ""
        raise DataError(f"{folder.label} has no {of} files", where=spec.where, code="no-file", help=help)
    if len(several := sorted(set(kinds.values()))) > 1:
        message = f"has files of several kinds, and all are read: {', '.join(several)}; write ds_type to choose one"
        run.warn((spec.group, spec.index, "path"), message)
    return list(kinds)


def _is_description(name: str, folder: Folder) -> bool:
    """Return True if a file describes the data and does not contain any rows."""
    parent, _, file = name.rpartition("/")
    if file == STATE:
        return folder.has(f"{parent}/{INFO}" if parent else INFO)
    return file in DESCRIPTIONS or file.upper().startswith(("README", "LICENSE"))


def _matching_data_files(run: Run, spec: DatasetSpec, folder: Folder) -> list[str]:
    """Return the files that data_files names, with patterns expanded, each once."""
    data_files = spec.settings.data_files or []
    matches: list[str] = []
    for index, name in enumerate([data_files] if isinstance(data_files, str) else data_files):
        key = (spec.group, spec.index, "data_files", *(() if isinstance(data_files, str) else (index,)))
        where = run.config.place(key)
        if set(name) & set("*?["):
            matches += _matching(spec, folder, name, where)
        elif spec.source in WEB or folder.has(name):
            matches.append(name)
        else:
            label = folder.file(name).label
            help = advice(label) if isinstance(folder, LocalFolder) else f"it contains {', '.join(folder.here()[:5])}"
            raise DataError(f"{label}: no such file", where=where, code="no-file", help=help)
    return list(dict.fromkeys(matches))


def _matching(spec: DatasetSpec, folder: Folder, pattern: str, where: str) -> list[str]:
    from fsspec.utils import glob_translate

    if spec.source in WEB:
        help = "name each file: the files below a web address can't be listed"
        raise DataError(f"{pattern}: no patterns in web addresses", where=where, code="no-file", help=help)
    glob = re.compile(glob_translate(pattern))
    matches = [name for name in folder.names() if glob.match(name)]
    if not matches:
        help = f"* stays in one folder, **/*.jsonl does not; it contains {', '.join(folder.here()[:5]) or 'nothing'}"
        raise DataError(f"no file in {folder.label} matches {pattern}", where=where, code="no-file", help=help)
    return matches


def kind_in(run: Run, spec: DatasetSpec, file: AnyFile) -> str:
    """Return the kind of a file. Raise DataError if neither ds_type nor its name shows it, SafetyError for a script."""
    if kind := spec.settings.ds_type or kind_of(file.name):
        return kind
    if file.name.endswith(".py"):
        help = "run it yourself where that is safe, and name the files that it writes"
        message = f"{file.label} is a script, and scripts are never run"
        raise SafetyError(message, where=spec.where, code="dataset-script", help=help)
    help = f"convert it to one of {', '.join(KINDS)}; if it already is one of these kinds, set ds_type"
    help += other_endings(run.config.selection.available)
    raise DataError(f"{file.label}: unknown kind of file", where=spec.where, code="no-kind", help=help)
