"""Read the rows of data files in order, or a slice of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from tunesmith import DataError, Row
from tunesmith_files import objects, separated, tables, texts
from tunesmith_files.compression import DAMAGE_ERRORS, File, opened
from tunesmith_files.kinds import compression_of, uncompressed
from tunesmith_files.local import LocalFile
from tunesmith_files.splits import Split

Count = Callable[[File, str | None], int]
COUNTS: dict[str, Count] = {"parquet": tables.parquet_count, "arrow": tables.arrow_count}
"""Kinds whose rows can be counted without building them."""
LARGE = 1 << 29
"""Bytes of JSON lines (512 MiB, about a second) from which lines are not counted for a display of progress."""


@dataclass(frozen=True)
class Data:
    """A data file, its kind, and the unit of a text file that is one row."""

    file: File
    kind: str
    unit: str = "line"

    @property
    def compression(self) -> str | None:
        return compression_of(self.file.name)

    @property
    def delimiter(self) -> str:
        return "\t" if uncompressed(self.file.name).endswith(".tsv") else ","

    def rows(self, start: int = 0) -> Iterator[Row]:
        """Yield the rows from row number `start` on. Raise DataError."""
        last = None
        try:
            for row in self._read(start):
                last = row.where
                yield row
        except DAMAGE_ERRORS as error:
            if self.compression is None or getattr(error, "errno", None):
                raise
            after = f"after {last}" if last else "from the start"
            message = f"can't be decompressed as {self.compression} {after}: {error}"
            help = "the file may be cut off: copy or write it again"
            raise DataError(message, where=self.file.label, code="broken-archive", help=help) from error

    def _read(self, start: int) -> Iterator[Row]:
        if self.kind == "parquet":
            yield from tables.parquet_rows(self.file, self.compression, start)
        elif self.kind == "arrow":
            yield from tables.arrow_rows(self.file, self.compression, start)
        else:
            with opened(self.file, self.compression) as stream:
                yield from islice(self._lines(stream), start, None)

    def _lines(self, stream: Any) -> Iterator[Row]:
        if self.kind == "json":
            return objects.rows(stream, self.file.label)
        if self.kind == "csv":
            return separated.rows(stream, self.file.label, self.delimiter)
        return texts.UNITS[self.unit](stream, self.file.label)

    @functools.cached_property
    def count(self) -> int:
        """The number of rows. Tables are counted without building their rows."""
        if self.kind in COUNTS:
            return COUNTS[self.kind](self.file, self.compression)
        return sum(1 for _ in self.rows())

    @property
    def quick_count(self) -> int | None:
        """The number of rows, if counting them takes a second at most; otherwise None."""
        if self.kind in COUNTS and isinstance(self.file, LocalFile):
            return self.count
        lines = isinstance(self.file, LocalFile) and self.file.name.endswith(".jsonl")
        if not lines or self.file.path.stat().st_size > LARGE:
            return None
        with self.file.path.open("rb") as stream:
            return sum(not line.isspace() for line in stream)

    @property
    def fingerprint(self) -> list[Any] | None:
        identity = self.file.identity()
        return None if identity is None else [identity, self.kind, self.unit if self.kind == "text" else self.delimiter]


class FileRows:
    """Rows of data files in order, or the slice that `split` selects. Each row knows its file and line."""

    def __init__(self, files: list[Data], split: Split):
        self.files, self.split = files, split

    @functools.cached_property
    def fingerprint(self) -> list[Any] | None:
        """The fingerprints of the files, and the slice. None if a file does not have a fingerprint."""
        fingerprints = [file.fingerprint for file in self.files]
        return None if None in fingerprints else [fingerprints, self.split.text if self.split.sliced else None]

    @functools.cached_property
    def bounds(self) -> tuple[int, int | None]:
        """The first row, and the row after the last or None if it is open. Raise DataError for an empty slice."""
        return self.split.rows(sum(file.count for file in self.files) if self.split.counts else None)

    @functools.cached_property
    def number(self) -> int | None:
        """The number of rows of local tables and JSON lines, for a display of progress; otherwise None."""
        try:
            numbers = [file.quick_count for file in self.files]
        except Exception:  # a damaged file: reading it raises the error with its place
            return None
        return None if self.split.sliced or None in numbers else sum(number or 0 for number in numbers)

    def __iter__(self) -> Iterator[Row]:
        start, stop = self.bounds
        number = start
        for row in islice(self._from(start), None if stop is None else stop - start):
            yield row
            number += 1
        if self.split.sliced and (number == start or (stop is not None and number < stop)):
            total = sum(file.count for file in self.files)
            raise self.split.error(f"{self.split.text} ends after the last of {total:,} rows", "write a shorter slice")

    def first_row(self, number: int = 0) -> Row | None:
        """Return a row of the slice quickly, for `check`: its row `number`, or one of the file if the slice depends on
        the total number of rows. Return None for a compressed table, which has to be decompressed as a whole.
        """
        if any(file.kind in COUNTS and file.compression for file in self.files):
            return None
        start = 0 if self.split.counts else self.bounds[0]
        return next(islice(self._from(start), number, None), None)

    def _from(self, start: int) -> Iterator[Row]:
        """Yield the rows from number `start` on. Earlier files are counted instead of read if their kind allows it."""
        for file in self.files:
            if start and file.kind in COUNTS:
                rows = () if file.count <= start else file.rows(start)
                start = max(start - file.count, 0)
                yield from rows
            else:
                for row in file.rows():
                    if start:
                        start -= 1
                    else:
                        yield row
