"""Number the rows of all entries, drop some of them, and report which."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tunesmith import DataError

if TYPE_CHECKING:
    from tunesmith import Row, Run, Source

NAMED = 3
"""The number of dropped rows that a note names."""


@dataclass
class Dropped:
    """The numbers of the rows to drop, ascending, and the number of the row that each of them repeats."""

    rows: NDArray[np.int64]
    twins: NDArray[np.int64]


class Table:
    """The rows of several sources, numbered from 0.

    Rows of test_datasets come first, so a duplicate in the training data is the later one and is dropped.
    """

    def __init__(self, sources: Sequence[Source]):
        self.in_order = list(sources)
        self.sources = sorted(sources, key=lambda source: source.spec.group != "test_datasets")
        self.sizes: list[int] = []
        """The number of rows of each source, once all have been read."""

    def __iter__(self) -> Iterator[Row]:
        sizes = []
        for source in self.sources:
            number = 0
            for number, row in enumerate(source.rows, 1):  # noqa: B007
                yield row
            sizes.append(number)
        for source, size, before in zip(self.sources, sizes, self.sizes, strict=False):
            if size != before:
                raise _changed(source)
        self.sizes = sizes

    @property
    def evaluated(self) -> int:
        """The number of rows of test_datasets. They have the first numbers and are never dropped."""
        return sum(n for n, s in zip(self.sizes, self.sources, strict=True) if s.spec.group == "test_datasets")

    def places(self, numbers: Iterable[int]) -> dict[int, str]:
        """Return a dictionary from row number to place. Reads no further than the last of the rows."""
        remaining = set(numbers)
        places: dict[int, str] = {}
        for number, row in enumerate(self if remaining else ()):
            if number in remaining:
                places[number] = row.where
                remaining.remove(number)
                if not remaining:
                    break
        return places

    def without(
        self, run: Run, dropped: Dropped, reason: str, verb: str, twins: Sequence[str] | None = None
    ) -> list[Source]:
        """Return the sources in their original order without the dropped rows, and add a note for each entry.

        Args:
            run: The run that gets the notes.
            dropped: The rows to drop.
            reason: The reason in the notes ("exact duplicates").
            verb: The text between a dropped row and the row that it repeats ("equals").
            twins: The places of the repeated rows, if they are not in this table.

        Raises DataError if all rows of an entry are dropped.
        """
        if not len(dropped.rows):
            run.note(reason, f"none in {sum(self.sizes):,} rows")
        ends = np.cumsum(self.sizes)
        cuts = np.searchsorted(dropped.rows, ends)[:-1]
        rows, origins = np.split(dropped.rows, cuts), np.split(dropped.twins, cuts)
        named: dict[int, int] = {}
        for numbers, repeated in zip(rows, origins, strict=True):
            named |= zip(numbers[:NAMED].tolist(), repeated[:NAMED].tolist(), strict=True)
        places = self.places([*named, *(named.values() if twins is None else ())])
        twin_places = places if twins is None else twins
        kept = {}
        for source, size, end, numbers in zip(self.sources, self.sizes, ends, rows, strict=True):
            if len(numbers):
                first = ", ".join(f"{places[row]} {verb} {twin_places[named[row]]}" for row in numbers[:NAMED].tolist())
                _report(run, source, reason, len(numbers), size, first)
                kept[id(source)] = replace(source, rows=Kept(source, numbers - (end - size), size))
        return [kept.get(id(source), source) for source in self.in_order]


def _report(run: Run, source: Source, reason: str, dropped: int, size: int, first: str) -> None:
    """Add a note about the rows dropped from a source. Raises DataError if none remain."""
    name = f"{source.spec.group}[{source.spec.index}] {source.spec.settings.path}"
    count = f"{dropped:,} of {size:,}, first: {first}"
    if dropped == size:
        message = f"{name}: all rows are dropped; {reason}: {count}"
        help = "remove the entry, or the setting that drops its rows"
        raise DataError(message, where=source.spec.where, help=help, code="no-rows")
    run.note(f"{name}: rows dropped: {reason}", count)


class Kept:
    """The rows of a source without the dropped ones. They are read lazily, on each iteration."""

    def __init__(self, source: Source, dropped: NDArray[np.int64], size: int):
        self.source = source
        self.keep = np.ones(size, bool)
        self.keep[dropped] = False

    def __iter__(self) -> Iterator[Row]:
        number = 0
        for number, row in enumerate(self.source.rows, 1):
            if number > len(self.keep):
                break
            if self.keep[number - 1]:
                yield row
        if number != len(self.keep):
            raise _changed(self.source)


def _changed(source: Source) -> DataError:
    message = f"{source.spec.settings.path}: the number of rows changed since the file was last read"
    return DataError(message, where=source.spec.where, code="unreadable", help="do not change data files during a run")
