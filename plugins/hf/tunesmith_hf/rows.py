"""Rows of JSON, JSON Lines and parquet files, of folders of these, and of datasets on the hub."""

from __future__ import annotations

import difflib
import functools
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tunesmith import DataError, DatasetSpec, EnvironmentProblem, Row, Run

KINDS = {".json": "json", ".jsonl": "json", ".parquet": "parquet"}


def is_hub_id(path: str) -> bool:
    """Whether a path has the shape of a hub id: `name` or `owner/name`, and not that of a file."""
    return (
        bool(re.fullmatch(r"[\w.-]+(/[\w.-]+)?", path)) and Path(path).suffix not in KINDS and not path.startswith(".")
    )


def data_files(run: Run, spec: DatasetSpec) -> list[Path]:
    """The local files of a dataset entry, in order of name; none for a hub id. Raises DataError."""
    settings = spec.settings
    path = Path(settings.path)
    if path.is_file():
        return [path]
    if path.is_dir():
        named = [path / name for name in settings.data_files or []]
        files = named or sorted(p for p in path.rglob("*") if p.suffix in KINDS)
        missing = [str(p) for p in files if not p.is_file()]
        if missing:
            raise DataError(f"data_files: {', '.join(missing)}: no such file", where=spec.where, code="no-file")
        if not files:
            raise DataError(f"{path} has no {', '.join(KINDS)} files", where=spec.where, code="no-file")
        return files
    if is_hub_id(settings.path):
        return []
    near = (
        difflib.get_close_matches(path.name, [p.name for p in path.parent.iterdir()], 3) if path.parent.is_dir() else []
    )
    help = f"did you mean {', '.join(near)}?" if near else "the path is relative to the working folder"
    raise DataError(f"{path}: no such file or folder", where=spec.where, code="no-file", help=help)


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
            if kind == "parquet":
                yield from _parquet(path)
            elif kind == "json":
                yield from _json(path)
            else:
                help = f"write ds_type: json or parquet; known endings: {', '.join(KINDS)}"
                raise DataError(f"{path}: of what kind is it?", where=self.spec.where, code="no-kind", help=help)


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
    try:
        return json.loads(text.decode("utf-8-sig" if line == 1 else "utf-8"))
    except json.JSONDecodeError as error:
        where = f"{path}:{line + error.lineno - 1}:{error.colno}"
        raise DataError(f"broken JSON: {error.msg}", where=where, code="broken-json") from None
    except UnicodeDecodeError as error:
        raise DataError(f"is not UTF-8: byte {error.start}", where=f"{path}:{line}", code="broken-json") from None


def _row(record: Any, where: str) -> Row:
    if not isinstance(record, dict):
        raise DataError(f"a row has to be a JSON object, not {type(record).__name__}", where=where, code="broken-json")
    return Row(record, where)


def _parquet(path: Path) -> Iterator[Row]:
    from pyarrow import parquet

    try:
        number = 0
        for batch in parquet.ParquetFile(path).iter_batches():
            for record in batch.to_pylist():
                yield Row(record, f"{path}[{number}]")
                number += 1
    except OSError as error:
        raise DataError(f"can't be read as parquet: {error}", where=str(path), code="broken-parquet") from error


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
        except (OSError, ValueError) as error:
            message = f"dataset {settings.path}: {str(error).splitlines()[0]}"
            help = "it is neither a local file nor to be had from the hub: check the path, the name and the network"
            raise EnvironmentProblem(message, where=self.spec.where, help=help) from error

    @property
    def fingerprint(self) -> str:
        return str(self.dataset._fingerprint)

    def __iter__(self) -> Iterator[Row]:
        for number, record in enumerate(self.dataset):
            yield Row(record, f"{self.spec.settings.path}[{self.spec.settings.split}]#{number}")
