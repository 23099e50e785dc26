"""Which files an entry names: one, those of a folder, those of a split, or those that data_files picks."""

from __future__ import annotations

import re
from functools import partial

from tunesmith import DataError, DatasetSpec, Run, SafetyError
from tunesmith.errors import errors_of, raise_together
from tunesmith.files.paths import FILE, advice
from tunesmith.redact import redact
from tunesmith_files import WORD, splits
from tunesmith_files.kinds import KINDS, kind_of
from tunesmith_files.local import LocalFile, LocalFolder, path_of
from tunesmith_files.remote import WEB, RemoteFile, RemoteFolder, check_library, place_of
from tunesmith_files.rows import Data, FileRows
from tunesmith_files.saved import DESCRIPTIONS, INFO, STATE, saved_files

OF_THE_HUB = ("name", "revision")
"""Keys of an entry that say something of a dataset on the hub alone."""
AnyFile = LocalFile | RemoteFile
Folder = LocalFolder | RemoteFolder


def inspect_all(run: Run) -> None:
    """Raise together what is wrong with the entries that are read here; nothing remote is asked."""
    raise_together(errors_of(partial(_inspect, run, spec) for spec in run.config.entries if spec.reader == WORD))


def _inspect(run: Run, spec: DatasetSpec) -> None:
    if spec.source == FILE:
        rows_of(run, spec)
        return
    check_keys(run, spec)
    _split(run, spec)
    check_library(spec)
    if spec.source in WEB and not spec.settings.data_files:  # an address is that of a file
        kind_in(spec, RemoteFile(None, spec.settings.path, redact(spec.settings.path), spec.where))


def rows_of(run: Run, spec: DatasetSpec) -> FileRows:
    """The rows of an entry; its files are found and none is opened. Raises DataError, ConfigError, SafetyError."""
    check_keys(run, spec)
    split = _split(run, spec)
    place = _here(spec) if spec.source == FILE else place_of(spec)
    settings = spec.settings
    if isinstance(place, LocalFolder | RemoteFolder):
        found = None if settings.data_files or settings.ds_type else saved_files(place, split)
        if found is not None:
            return FileRows([Data(file, "arrow") for file in found], split)
        files: list[AnyFile] = [place.file(name) for name in _in_folder(run, spec, place, split)]
    else:
        if settings.data_files:
            key = (spec.group, spec.index, "data_files")
            raise run.config.error(key, f"picks files of a folder, and {place.label} is a file", "drop data_files")
        if splits.named(split.name) != splits.TRAIN:
            splits.of_split([place.name], split, place.label)
        files = [place]
    data = [Data(file, kind_in(spec, file), settings.sample_by) for file in files]
    if settings.sample_by != "line" and not any(one.kind == "text" for one in data):
        raise run.config.error((spec.group, spec.index, "sample_by"), "is for texts (.txt, .md)", "drop sample_by")
    return FileRows(data, split)


def check_keys(run: Run, spec: DatasetSpec) -> None:
    """Raise ConfigError for a key that says nothing of files."""
    for key in OF_THE_HUB:
        if getattr(spec.settings, key) is not None:
            message = "is for datasets on the hub, and this one is local"
            if spec.source != FILE:
                message = f"is for datasets on the hub, and this one is read by {spec.source}://"
            raise run.config.error((spec.group, spec.index, key), message, f"drop {key}")


def _split(run: Run, spec: DatasetSpec) -> splits.Split:
    written = "split" in spec.settings.model_fields_set
    where = run.config.document.where((spec.group, spec.index, "split"), value=True) if written else spec.where
    return splits.parse(spec.settings.split, where)


def _here(spec: DatasetSpec) -> LocalFile | LocalFolder:
    """The file or folder of this machine that an entry names."""
    path = path_of(spec.settings.path)
    try:
        if path.is_dir():
            return LocalFolder(path)
        if path.is_file():
            return LocalFile(path)
        there = path.exists()
    except OSError as error:
        raise DataError(f"path: {error.strerror}", where=spec.where, code="no-file") from error
    if there:
        message, help = f"{path} is neither a file nor a folder", "rows are read more than once: write them to a file"
        raise DataError(message, where=spec.where, code="no-file", help=help)
    help = advice(str(path))
    if set(str(path)) & set("*?["):
        help = "name the folder, and the pattern in data_files"
    raise DataError(f"{path}: no such file or folder", where=spec.where, code="no-file", help=help)


def _in_folder(run: Run, spec: DatasetSpec, folder: Folder, split: splits.Split) -> list[str]:
    """Names of the files below a folder that are read."""
    settings = spec.settings
    asked = "split" in settings.model_fields_set
    names = _picked(run, spec, folder) if settings.data_files else _of_known_kind(run, spec, folder)
    if asked:
        return splits.of_split(names, split, folder.label)
    there = sorted({s for name in names if (s := splits.split_of(name))} - {splits.TRAIN})
    if there and not settings.data_files:
        message = (
            f"holds files that are called {', '.join(there)}, and they are read with the others: write split: train"
        )
        run.warn((spec.group, spec.index, "path"), message)
    return names


def _of_known_kind(run: Run, spec: DatasetSpec, folder: Folder) -> list[str]:
    if isinstance(folder, RemoteFolder) and spec.source in WEB:
        raise DataError(f"{folder.label}: no folder can be listed there", where=spec.where, code="no-file")
    kinds = {name: kind for name in folder.names() if (kind := kind_of(name)) and not _is_about(name, folder)}
    wanted = spec.settings.ds_type
    if wanted:
        kinds = {name: kind for name, kind in kinds.items() if kind == wanted}
    elif set(kinds.values()) - {"text"}:  # then texts are notes about the data
        kinds = {name: kind for name, kind in kinds.items() if kind != "text"}
    if not kinds:
        of = wanted or ", ".join(ending for ending, kind in KINDS.items() if kind != "text")
        here = ", ".join(folder.here()[:5]) or "nothing"
        help = f"it holds {here}" + ("; data_files names what is of another ending" if wanted else "")
        raise DataError(f"{folder.label} has no {of} files", where=spec.where, code="no-file", help=help)
    if len(several := sorted(set(kinds.values()))) > 1:
        message = f"holds files of several kinds, and all are read: {', '.join(several)}; ds_type picks one"
        run.warn((spec.group, spec.index, "path"), message)
    return list(kinds)


def _is_about(name: str, folder: Folder) -> bool:
    """Whether a file is about the data, and holds none of it."""
    above, _, file = name.rpartition("/")
    if file == STATE:
        return folder.has(f"{above}/{INFO}" if above else INFO)
    return file in DESCRIPTIONS or file.upper().startswith(("README", "LICENSE"))


def _picked(run: Run, spec: DatasetSpec, folder: Folder) -> list[str]:
    """The files that data_files names, patterns looked up in the folder, each once."""
    named = spec.settings.data_files or []
    found: list[str] = []
    for index, name in enumerate([named] if isinstance(named, str) else named):
        key = (spec.group, spec.index, "data_files", *(() if isinstance(named, str) else (index,)))
        where = run.config.document.where(key, value=True)
        if set(name) & set("*?["):
            found += _matching(spec, folder, name, where)
        elif spec.source in WEB or folder.has(name):
            found.append(name)
        else:
            label = folder.file(name).label
            help = advice(label) if isinstance(folder, LocalFolder) else f"it holds {', '.join(folder.here()[:5])}"
            raise DataError(f"{label}: no such file", where=where, code="no-file", help=help)
    return list(dict.fromkeys(found))


def _matching(spec: DatasetSpec, folder: Folder, pattern: str, where: str) -> list[str]:
    from fsspec.utils import glob_translate

    if spec.source in WEB:
        help = "name each file: an http address has no list of what is below it"
        raise DataError(f"{pattern} is a pattern", where=where, code="no-file", help=help)
    whole = re.compile(glob_translate(pattern))
    found = [name for name in folder.names() if whole.match(name)]
    if not found:
        help = f"* stops at a folder, **/*.jsonl does not; it holds {', '.join(folder.here()[:5]) or 'nothing'}"
        raise DataError(f"nothing in {folder.label} is called {pattern}", where=where, code="no-file", help=help)
    return found


def kind_in(spec: DatasetSpec, file: AnyFile) -> str:
    """The kind of a file. Raises DataError where neither name nor ds_type says it; SafetyError for a program."""
    if kind := spec.settings.ds_type or kind_of(file.name):
        return kind
    if file.name.endswith(".py"):
        help = "run it yourself where that is safe, and name the files that it writes"
        message = f"{file.label} is a script, which is not run"
        raise SafetyError(message, where=spec.where, code="dataset-script", help=help)
    help = f"convert it to one of {', '.join(KINDS)}; or, where it is that already, say so with ds_type"
    raise DataError(f"{file.label}: of what kind is it?", where=spec.where, code="no-kind", help=help)
