"""The rows of all entries under one number each, what is dropped of them, and where it stood."""

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
"""Rows that a note names."""


@dataclass
class Dropped:
    """Numbers of the rows to drop, ascending, and the number of the row that each of them repeats."""

    rows: NDArray[np.int64]
    twins: NDArray[np.int64]


class Table:
    """The rows of several sources, those to evaluate on first: so the earliest of equal rows is one of these."""

    def __init__(self, sources: Sequence[Source]):
        self.given = list(sources)
        self.sources = sorted(sources, key=lambda source: source.spec.group != "test_datasets")
        self.sizes: list[int] = []
        """Rows of each source, once all have been read."""

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
        """How many rows are to be evaluated on; the first ones. They are never dropped."""
        return sum(n for n, s in zip(self.sizes, self.sources, strict=True) if s.spec.group == "test_datasets")

    def places(self, numbers: Iterable[int]) -> dict[int, str]:
        """Where rows stand, by number; reads up to the last of them."""
        wanted = set(numbers)
        found: dict[int, str] = {}
        for number, row in enumerate(self if wanted else ()):
            if number in wanted:
                found[number] = row.where
                if len(found) == len(wanted):
                    break
        return found

    def without(
        self, run: Run, dropped: Dropped, what: str, verb: str, twins: Sequence[str] | None = None
    ) -> list[Source]:
        """The sources, as they were given, without some rows; says so in the summary, entry by entry.

        `twins` are the places of the rows that are repeated, where these are not in the table. Raises DataError where
        nothing is left of an entry.
        """
        if not len(dropped.rows):
            run.note(what, f"none in {sum(self.sizes):,} rows")
        ends = np.cumsum(self.sizes)
        cuts = np.searchsorted(dropped.rows, ends)[:-1]
        rows, origins = np.split(dropped.rows, cuts), np.split(dropped.twins, cuts)
        named: dict[int, int] = {}
        for here, their in zip(rows, origins, strict=True):
            named |= zip(here[:NAMED].tolist(), their[:NAMED].tolist(), strict=True)
        places = self.places([*named, *(named.values() if twins is None else ())])
        where = places if twins is None else twins
        kept = {}
        for source, size, end, here in zip(self.sources, self.sizes, ends, rows, strict=True):
            if len(here):
                first = ", ".join(f"{places[row]} {verb} {where[named[row]]}" for row in here[:NAMED].tolist())
                _say(run, source, what, len(here), size, first)
                kept[id(source)] = replace(source, rows=Kept(source, here - (end - size), size))
        return [kept.get(id(source), source) for source in self.given]


def _say(run: Run, source: Source, what: str, dropped: int, size: int, first: str) -> None:
    name = f"{source.spec.group}[{source.spec.index}] {source.spec.settings.path}"
    said = f"{dropped:,} of {size:,}, first: {first}"
    if dropped == size:
        help = "drop the entry, or the key that drops its rows"
        raise DataError(f"{name}: no row is left; {what}: {said}", where=source.spec.where, help=help, code="no-rows")
    run.note(f"{name}: rows dropped: {what}", said)


class Kept:
    """The rows of a source without some of them, read lazily, again and again."""

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
    message = f"{source.spec.settings.path} has more or fewer rows than when it was read before"
    return DataError(message, where=source.spec.where, code="unreadable", help="leave the files alone during a run")
