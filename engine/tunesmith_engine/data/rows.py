"""The rows of a run's entries as strategies get them: read, cut into shards, and filtered together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from tunesmith.config.load import DatasetSpec
from tunesmith.errors import DataError, TunesmithError
from tunesmith.files.row import Row, Source
from tunesmith.run import Run


def rows_of(run: Run, spec: DatasetSpec) -> Iterable[Row]:
    """The rows of one entry, as its reader gives them, or the shard of them that it asks for."""
    rows = run.hooks.load_rows(run, spec)
    return Shard(rows, spec.settings.shards_idx, spec.settings.shards) if spec.settings.shards else rows


def read_all(run: Run) -> list[Source]:
    """The entries of datasets and test_datasets with their rows; nothing is read yet.

    Raises DataError for an entry that can't be.
    """
    specs = (*run.config.datasets, *run.config.test_datasets)
    return [Source(spec, Reading(spec, rows_of(run, spec))) for spec in specs]


def filtered(run: Run, sources: list[Source]) -> list[Source]:
    """What the plugins that answer filter_rows leave of them."""
    return run.hooks.filter_rows(run, sources) if sources and run.hooks.has("filter_rows") else sources


def fingerprints(sources: list[Source]) -> list[Any]:
    """What the rows of each are known by: a JSON value, or None for rows whose content nobody knows."""
    return [getattr(source.rows, "fingerprint", None) for source in sources]


class Reading:
    """The rows of a reader, which breaks off with a DataError about its entry, whoever asks for the next row."""

    def __init__(self, spec: DatasetSpec, rows: Iterable[Row]):
        self.spec, self.rows = spec, rows

    @property
    def fingerprint(self) -> Any:
        return getattr(self.rows, "fingerprint", None)

    def __iter__(self) -> Iterator[Row]:
        last = None
        try:
            for row in self.rows:
                last = row.where
                yield row
        except (TunesmithError, GeneratorExit):
            raise
        except Exception as error:
            path, after = self.spec.settings.path, f"after {last}" if last else "from the start"
            message = f"{path} can't be read {after}: {type(error).__name__}: {error}"
            raise DataError(message, where=self.spec.where, code="unreadable") from error


class Shard:
    """Every `number`-th row from row `index` on."""

    def __init__(self, rows: Iterable[Row], index: int, number: int):
        self.rows, self.index, self.number = rows, index, number

    @property
    def fingerprint(self) -> Any:
        known = getattr(self.rows, "fingerprint", None)
        return None if known is None else [known, self.index, self.number]

    def __iter__(self) -> Iterator[Row]:
        return islice(self.rows, self.index, None, self.number)
