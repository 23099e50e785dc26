"""Shards: the prepared examples of blocks of rows, each sealed in a file as soon as it is complete.

The rows of an entry are cut into blocks of ROWS_PER_BLOCK. A block is tokenized by any of the processes of a run, and
becomes one or more files, its parts. What the parts contain depends on the rows alone. A process that is killed
therefore loses at most the blocks that it was working on, and another one makes the same of them.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith import errors
from tunesmith.redact import clean
from tunesmith_engine.batch.examples import ExampleStore
from tunesmith_engine.runtime.atomic import write_text, writing

ROWS_PER_BLOCK = 1024
"""Rows of a block, which take some tenths of a second to tokenize. A strategy may combine rows of the same block."""
TOKENS_PER_PART = 1 << 22
"""Tokens (32 MiB with their weights) after which a block begins another part, so that long rows need little memory."""
META, FIELDS = "#meta", "#fields"
"""Members of a shard beside its arrays: facts about it as JSON, and the fields of its examples as JSON lines."""
Names = tuple[tuple[str, ...], tuple[str, ...]]
"""The columns and the model inputs that an example has."""
DAMAGED = (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile)


@dataclass
class Meta:
    """Facts about a part.

    last: it is the last part of its block, whose counts it has. names: those of its examples; None without examples.
    first: the number of the first row that has an example. rows: how many rows have one. layout: dtype and shape of
    each array. session, notes: the process that wrote it, and the notes that were added meanwhile.
    """

    last: bool = False
    names: Names | None = None
    first: int = -1
    rows: int = 0
    layout: dict[str, tuple[str, tuple[int, ...]]] = field(default_factory=dict)
    fields: bool = False
    counts: dict[str, Any] = field(default_factory=dict)
    session: str = ""
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass
class Failure:
    """An error at a block of an entry. names: rows of the block whose examples have other names than the one before."""

    entry: int
    block: int
    error: str | None = None
    problems: list[dict[str, Any]] = field(default_factory=list)
    names: list[tuple[int, Names]] = field(default_factory=list)

    @property
    def place(self) -> tuple[int, int]:
        return self.entry, self.block

    def as_error(self) -> errors.TunesmithError:
        """Return the error as one of the type that it had in its process."""
        kind = getattr(errors, self.error or "", errors.TunesmithError)
        error: errors.TunesmithError = kind([errors.Problem(**problem) for problem in self.problems])
        return error


class Shards:
    """A folder with the shards of all entries.

    Args:
        folder: created when the first file is written.
        token: identifies this start of the run, the same on all of its processes.
        durable: the files outlive the run, so each is written to the disk before it counts.
    """

    def __init__(self, folder: Path, token: str, durable: bool):
        self.folder, self.token, self.durable = folder, token, durable
        self.raised: tuple[Failure, BaseException] | None = None
        """The error of this process, with its cause and traceback."""
        self.lock: int | None = None
        """The open file by which this process keeps other runs away. Forked processes must close it."""
        self.failed: list[Failure] = []
        """The errors that are known to this process, beside those of the files."""

    @property
    def session(self) -> str:
        """This process, which the notes of its blocks are of."""
        return f"{self.token}-{os.getpid()}"

    def path(self, entry: int, block: int, part: int) -> Path:
        return self.folder / f"{entry}-{ROWS_PER_BLOCK}-{block:08}-{part}.npz"

    # blocks

    def write(self, entry: int, block: int, part: int, store: ExampleStore, meta: Meta) -> None:
        """Write a part. Its block is sealed once the last part exists."""
        meta.counts, meta.notes = clean(meta.counts), clean(meta.notes)
        meta.layout = {name: (array.dtype.str, array.shape) for name, array in store.arrays.items()}
        meta.fields = bool(store.fields)
        lines = "".join(json.dumps(value) + "\n" for value in store.fields or ())
        path = self.path(entry, block, part)
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        help = "make room there, or choose another dataset_prepared_path"
        with writing(f"prepared data in {self.folder.parent}", self.folder.parent, help):
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                with partial.open("wb") as file:
                    _write(file, {**store.arrays, FIELDS: _bytes(lines), META: _bytes(json.dumps(asdict(meta)))})
                    if self.durable:
                        file.flush()
                        os.fsync(file.fileno())
                partial.rename(path)
            except OSError:
                partial.unlink(missing_ok=True)
                raise

    def sealed(self, entry: int) -> set[int]:
        """Return the blocks of an entry whose last part exists and can be read."""
        last: dict[int, int] = {}
        for path in self.folder.glob(f"{entry}-{ROWS_PER_BLOCK}-*.npz"):
            block, part = map(int, path.stem.split("-")[2:])
            last[block] = max(part, last.get(block, 0))
        return {block for block, part in last.items() if (meta := self.meta(entry, block, part)) and meta.last}

    def meta(self, entry: int, block: int, part: int) -> Meta | None:
        """Return the facts about a part, or None if it is missing or damaged."""
        try:
            with zipfile.ZipFile(self.path(entry, block, part)) as archive:
                fields = json.loads(_member(archive, META).tobytes())
            return Meta(**{**fields, "names": _names(fields["names"])})
        except DAMAGED:
            return None

    def metas(self, entry: int, block: int) -> list[Meta] | None:
        """Return the facts about all parts of a block, or None if it is not sealed."""
        metas: list[Meta] = []
        while not metas or not metas[-1].last:
            meta = self.meta(entry, block, len(metas))
            if meta is None:
                return None
            metas.append(meta)
        return metas

    def read(self, entry: int, block: int, part: int) -> dict[str, NDArray[Any]] | None:
        """Return the arrays of a part, with its fields as FIELDS, or None if it is damaged: the sums are compared."""
        try:
            with zipfile.ZipFile(self.path(entry, block, part)) as archive:
                names = [name.removesuffix(".npy") for name in archive.namelist()]
                return {name: _member(archive, name) for name in names if name != META}
        except DAMAGED:
            return None

    def remove(self, entry: int, block: int) -> None:
        for path in self.folder.glob(f"{entry}-{ROWS_PER_BLOCK}-{block:08}-*.npz"):
            path.unlink(missing_ok=True)

    # entries

    def finish(self, entry: int, rows: int) -> None:
        """Record the number of rows of an entry, which is known once a process has read all of them."""
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / f".{entry}-rows.{os.getpid()}"
        partial.write_text(str(rows), encoding="utf-8")
        partial.rename(self.folder / f"{entry}-rows.json")

    def rows(self, entry: int) -> int | None:
        """Return the number of rows of an entry, or None if no process has read all of them."""
        try:
            return int((self.folder / f"{entry}-rows.json").read_text("utf-8"))
        except (OSError, ValueError):
            return None

    def missing(self, entry: int) -> set[int] | None:
        """Return the blocks of an entry that are not sealed, or None if the number of its rows is not known."""
        rows = self.rows(entry)
        return None if rows is None else set(range(-(-rows // ROWS_PER_BLOCK))) - self.sealed(entry)

    # errors

    def fail(self, failure: Failure, error: BaseException | None, alone: bool) -> None:
        """Record an error, for the other processes of this start if there are some. Raises it if that is impossible."""
        self.raised = None if error is None else (failure, error)
        self.failed.append(failure)
        if not alone:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                path = self.folder / f"failed-{self.token}-{failure.entry}-{failure.block}.json"
                write_text(path, json.dumps(asdict(failure), default=str))
            except OSError:
                if error is not None:
                    raise error from None
                raise

    def failures(self) -> list[Failure]:
        """Return the errors of this start, in the order of the rows."""
        failures = list(self.failed)
        for path in self.folder.glob(f"failed-{self.token}-*.json"):
            content = json.loads(path.read_text("utf-8"))
            content["names"] = [(row, _names(names)) for row, names in content["names"]]
            failures.append(Failure(**content))
        return sorted(failures, key=lambda failure: failure.place)

    def clear(self) -> None:
        """Delete what a start that was killed left unfinished."""
        for path in [*self.folder.glob(".*"), *self.folder.glob("failed-*")]:
            path.unlink(missing_ok=True)


def _names(value: Any) -> Names | None:
    return None if value is None else (tuple(value[0]), tuple(value[1]))


def _bytes(text: str) -> NDArray[np.uint8]:
    return np.frombuffer(text.encode(), np.uint8)


def _write(file: Any, arrays: dict[str, NDArray[Any]]) -> None:
    """Write arrays as an .npz file, which numpy.load reads."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)


def _member(archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    # Read as a whole: the sum is compared at the end of a member.
    array: NDArray[Any] = np.lib.format.read_array(io.BytesIO(archive.read(f"{name}.npy")), allow_pickle=False)
    return array
