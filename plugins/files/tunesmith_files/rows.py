"""The rows of data files, one file after the other, and slices of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from tunesmith import DataError, Row
from tunesmith_files import objects, separated, tables, texts
from tunesmith_files.kinds import bare, packing_of
from tunesmith_files.packed import DAMAGES, File, opened
from tunesmith_files.splits import Split

Count = Callable[[File, str | None], int]
COUNTS: dict[str, Count] = {"parquet": tables.parquet_count, "arrow": tables.arrow_count}
"""Kinds whose rows can be counted without making them."""


@dataclass(frozen=True)
class Data:
    """A file, of what kind it is, and what one row of a text is."""

    file: File
    kind: str
    unit: str = "line"

    @property
    def packing(self) -> str | None:
        return packing_of(self.file.name)

    @property
    def delimiter(self) -> str:
        return "\t" if bare(self.file.name).endswith(".tsv") else ","

    def rows(self, start: int = 0) -> Iterator[Row]:
        """Its rows, from one on. Raises DataError."""
        last = None
        try:
            for row in self._read(start):
                last = row.where
                yield row
        except DAMAGES as error:
            if self.packing is None or getattr(error, "errno", None):
                raise
            after = f"after {last}" if last else "from the start"
            message = f"can't be unpacked as {self.packing} {after}: {error}"
            help = "it may be cut off: copy or write it again"
            raise DataError(message, where=self.file.label, code="broken-archive", help=help) from error

    def _read(self, start: int) -> Iterator[Row]:
        if self.kind == "parquet":
            yield from tables.parquet_rows(self.file, self.packing, start)
        elif self.kind == "arrow":
            yield from tables.arrow_rows(self.file, self.packing, start)
        else:
            with opened(self.file, self.packing) as stream:
                yield from islice(self._lines(stream), start, None)

    def _lines(self, stream: Any) -> Iterator[Row]:
        if self.kind == "json":
            return objects.rows(stream, self.file.label)
        if self.kind == "csv":
            return separated.rows(stream, self.file.label, self.delimiter)
        return texts.UNITS[self.unit](stream, self.file.label)

    @functools.cached_property
    def count(self) -> int:
        """The number of its rows; those of a table are not made for it."""
        if self.kind in COUNTS:
            return COUNTS[self.kind](self.file, self.packing)
        return sum(1 for _ in self.rows())

    @property
    def fingerprint(self) -> list[Any] | None:
        known = self.file.identity()
        return None if known is None else [known, self.kind, self.unit if self.kind == "text" else self.delimiter]


class FileRows:
    """Rows of data files in their order, or the slice that `split` asks for; each row knows its file and line."""

    def __init__(self, files: list[Data], split: Split):
        self.files, self.split = files, split

    @functools.cached_property
    def fingerprint(self) -> list[Any] | None:
        """What the files are known by, and the slice; None where the content of one is not known."""
        known = [file.fingerprint for file in self.files]
        return None if None in known else [known, self.split.text if self.split.sliced else None]

    @functools.cached_property
    def bounds(self) -> tuple[int, int | None]:
        """The first row, and the one after the last where it is known. Raises DataError for a slice of none."""
        return self.split.rows(sum(file.count for file in self.files) if self.split.counts else None)

    def __iter__(self) -> Iterator[Row]:
        start, stop = self.bounds
        number = start
        for row in islice(self._from(start), None if stop is None else stop - start):
            yield row
            number += 1
        if self.split.sliced and (number == start or (stop is not None and number < stop)):
            there = sum(file.count for file in self.files)
            raise self.split.error(
                f"{self.split.text} ends after the rows, which are {there:,}", "take a shorter slice"
            )

    def _from(self, start: int) -> Iterator[Row]:
        """Rows from one on; files of which nothing is wanted are counted, not read, where their kind allows it."""
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
