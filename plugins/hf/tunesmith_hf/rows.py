"""Rows of JSON, JSON Lines and parquet files, of folders of these, and of datasets on the hub."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tunesmith import DataError, DatasetSpec, EnvironmentProblem, Row, Run, SafetyError
from tunesmith_hf.paths import KINDS, advice, is_hub_id, nearest

OF_THE_HUB = {"split": "train", "name": None, "revision": None}
"""Keys of an entry that say something of a dataset on the hub alone, and what they are where nothing is said."""


def data_files(run: Run, spec: DatasetSpec) -> list[Path]:
    """The local files of a dataset entry, in order of name; none for a hub id.

    Raises DataError, ConfigError, SafetyError.
    """
    settings = spec.settings
    path = Path(settings.path)
    try:
        local, folder = path.exists(), path.is_dir()
    except OSError as error:
        raise DataError(f"path: {error.strerror}", where=spec.where, code="no-file") from error
    if not local and not is_hub_id(settings.path, settings.revision):
        raise _missing(spec)
    if not local:
        if (near := nearest(settings.path)) is not None and near.exists():
            run.warn((spec.group, spec.index, "path"), f"{path} is looked for on the hub; here there is {near}")
        return []
    for key, nothing in OF_THE_HUB.items():
        if getattr(settings, key) != nothing:
            place = (spec.group, spec.index, key)
            raise run.config.error(place, "is for datasets on the hub, and this one is local", f"drop {key}")
    if folder:
        return _in_folder(run, spec, path)
    _check_kind(spec, path)
    return [path]


def _missing(spec: DatasetSpec) -> DataError:
    path = spec.settings.path
    help = advice(path)
    if set(path) & set("*?["):
        help = "no pattern is looked up: name the folder, and with data_files: [...] some of its files"
    return DataError(f"{Path(path)}: no such file or folder", where=spec.where, code="no-file", help=help)


def _in_folder(run: Run, spec: DatasetSpec, path: Path) -> list[Path]:
    """The files below a folder, or those that data_files names."""
    named = spec.settings.data_files
    files = [path / name for name in named or []] or sorted(p for p in path.rglob("*") if p.suffix in KINDS)
    for index, file in enumerate(files if named else []):
        if not file.is_file():
            where = run.config.document.where((spec.group, spec.index, "data_files", index), value=True)
            raise DataError(f"{file}: no such file", where=where, code="no-file", help=advice(str(file)))
        _check_kind(spec, file)
    if not files:
        here = ", ".join(sorted(p.name for p in path.iterdir())[:5]) or "nothing"
        message = f"{path} has no {', '.join(KINDS)} files"
        raise DataError(message, where=spec.where, code="no-file", help=f"it holds {here}")
    return files


def _check_kind(spec: DatasetSpec, path: Path) -> None:
    """Raise DataError for a file of no known kind; SafetyError for one that is a program."""
    if spec.settings.ds_type or path.suffix in KINDS:
        return
    if path.suffix == ".py":
        help = "run it yourself where that is safe, and name the files that it writes"
        raise SafetyError(f"{path} is a script, which is not run", where=spec.where, code="dataset-script", help=help)
    help = f"convert it to one of {', '.join(KINDS)}; or, where it is that already, write ds_type: json or parquet"
    raise DataError(f"{path}: of what kind is it?", where=spec.where, code="no-kind", help=help)


def rows_of(run: Run, spec: DatasetSpec) -> LocalRows | HubRows:
    files = data_files(run, spec)
    return LocalRows(files, spec) if files else HubRows(spec)


class LocalRows:
    """Rows of local files, read lazily; each knows its file and line (or index)."""

    def __init__(self, files: list[Path], spec: DatasetSpec):
        self.files, self.spec = files, spec

    @functools.cached_property
    def fingerprint(self) -> list[str]:
        """sha256 of every file's content."""
        hashes = []
        for path in self.files:
            with path.open("rb") as file:
                hashes.append(hashlib.file_digest(file, "sha256").hexdigest())
        return hashes

    def __iter__(self) -> Iterator[Row]:
        for path in self.files:
            kind = self.spec.settings.ds_type or KINDS.get(path.suffix)
            yield from _parquet(path) if kind == "parquet" else _json(path)


def _json(path: Path) -> Iterator[Row]:
    """A JSON Lines file, or one JSON array of objects: told apart by the first character."""
    with path.open("rb") as file:
        start = file.read(64).lstrip()
    if start.startswith(b"["):
        records = _parse(path.read_bytes(), path, 1)
        for number, record in enumerate(records):
            yield _row(record, f"{path}[{number}]")
        return
    with path.open("rb") as file:
        for line, text in enumerate(file, 1):
            if text.strip():
                yield _row(_parse(text, path, line), f"{path}:{line}")


def _parse(text: bytes, path: Path, line: int) -> Any:
    help = "each line is one JSON object; a file that begins with [ is one array of them"
    try:
        return json.loads(text.decode("utf-8-sig" if line == 1 else "utf-8"))
    except json.JSONDecodeError as error:
        where, message = f"{path}:{line + error.lineno - 1}:{error.colno}", f"broken JSON: {error.msg}"
    except UnicodeDecodeError as error:
        before = text[: error.start]
        row, column = line + before.count(b"\n"), error.start - before.rfind(b"\n")
        where = f"{path}:{row}:{column}"
        message, help = f"is not UTF-8: byte {error.start}", "save the file as UTF-8"
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; thousands of brackets
        where, message = f"{path}:{line}", f"broken JSON: {error}"
    raise DataError(message, where=where, code="broken-json", help=help)


def _row(record: Any, where: str) -> Row:
    if not isinstance(record, dict):
        message, help = f"a row has to be a JSON object, not {type(record).__name__}", 'such as {"text": "..."}'
        raise DataError(message, where=where, code="broken-json", help=help)
    return Row(record, where)


def _parquet(path: Path) -> Iterator[Row]:
    from pyarrow import parquet

    try:
        number = 0
        for batch in parquet.ParquetFile(path).iter_batches():
            for record in batch.to_pylist():
                yield Row(record, f"{path}[{number}]")
                number += 1
    except (OSError, ValueError) as error:  # pyarrow's own are ValueErrors
        message, help = f"can't be read as parquet: {error}", "write the file again; or ds_type says what else it is"
        raise DataError(message, where=str(path), code="broken-parquet", help=help) from error


class HubRows:
    """Rows of a dataset on the hub, by the datasets library: prepared and memory-mapped in its own cache."""

    def __init__(self, spec: DatasetSpec):
        self.spec = spec

    @functools.cached_property
    def dataset(self) -> Any:
        import datasets

        settings = self.spec.settings
        try:
            return datasets.load_dataset(
                settings.path,
                settings.name,
                split=settings.split,
                revision=settings.revision,
                data_files=settings.data_files,
            )
        except (OSError, ValueError, RuntimeError) as error:
            message = f"dataset {settings.path}: {(str(error) or type(error).__name__).splitlines()[0]}"
            if "script" in message:  # as datasets says it
                help = "take a dataset of files (parquet, json)"
                raise SafetyError(message, where=self.spec.where, code="dataset-script", help=help) from error
            help = "it is neither a local file nor to be had from the hub: check the path, the name and the network"
            raise EnvironmentProblem(message, where=self.spec.where, help=help) from error

    @property
    def fingerprint(self) -> str:
        return str(self.dataset._fingerprint)

    def __iter__(self) -> Iterator[Row]:
        for number, record in enumerate(self.dataset):
            yield Row(record, f"{self.spec.settings.path}[{self.spec.settings.split}]#{number}")
