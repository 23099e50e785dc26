"""Read the rows of a run's entries as strategies get them: from their readers, cut into shards, and filtered."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from tunesmith.config.config import DatasetSpec
from tunesmith.errors import DataError, TunesmithError
from tunesmith.files.row import Row, Source
from tunesmith.run import Run


def rows_of(run: Run, spec: DatasetSpec) -> Iterable[Row]:
    """Return the rows of an entry from its reader, or the shard of them that the entry specifies."""
    rows = run.hooks.load_rows(run, spec)
    return Shard(rows, spec.settings.shards_idx, spec.settings.shards) if spec.settings.shards else rows


def read_all(run: Run) -> list[Source]:
    """Return the entries of datasets and test_datasets with their rows, of which none is read yet.

    Raises DataError for an entry that can't be read.
    """
    specs = (*run.config.datasets, *run.config.test_datasets)
    return [Source(spec, Reading(spec, rows_of(run, spec))) for spec in specs]


def filtered(run: Run, sources: list[Source]) -> list[Source]:
    """Return the sources without the rows that filter_rows drops."""
    return run.hooks.filter_rows(run, sources) if sources and run.hooks.has("filter_rows") else sources


def fingerprints(sources: list[Source]) -> list[Any]:
    """Return the fingerprint of each source's rows: a JSON value, or None if their reader has none."""
    return [getattr(source.rows, "fingerprint", None) for source in sources]


class Reading:
    """The rows of a reader. An error while reading becomes a DataError with the entry and the last row that was read.

    Readers are plugins over files and networks, so any exception may come from them.
    """

    def __init__(self, spec: DatasetSpec, rows: Iterable[Row]):
        self.spec, self.rows = spec, rows

    @property
    def fingerprint(self) -> Any:
        return getattr(self.rows, "fingerprint", None)

    @property
    def number(self) -> int | None:
        """The number of rows, if the reader knows it without building them."""
        return getattr(self.rows, "number", None)

    def __iter__(self) -> Iterator[Row]:
        last = None
        try:
            for row in self.rows:
                last = row.where
                yield row
        except (TunesmithError, GeneratorExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            path, after = self.spec.settings.path, f"after {last}" if last else "from the start"
            message = f"{path} can't be read {after}: {type(error).__name__}: {error}"
            raise DataError(message, where=self.spec.where, code="unreadable") from error


class Shard:
    """Every `number`-th row, starting with row `index`."""

    def __init__(self, rows: Iterable[Row], index: int, number: int):
        self.rows, self.index, self.number = rows, index, number

    @property
    def fingerprint(self) -> Any:
        rows_fingerprint = getattr(self.rows, "fingerprint", None)
        return None if rows_fingerprint is None else [rows_fingerprint, self.index, self.number]

    def __iter__(self) -> Iterator[Row]:
        return islice(self.rows, self.index, None, self.number)
