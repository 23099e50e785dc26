"""Apply exact and near deduplication and decontamination to the sources of a run."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith import ConfigError, Problem
from tunesmith.config.endings import is_ending
from tunesmith.config.settings import DatasetSettings
from tunesmith.files.paths import FILE, advice
from tunesmith_dedup import Decontamination, DedupSettings, NearDeduplication

if TYPE_CHECKING:
    from tunesmith import Row, Run, Source


def filtered(run: Run, sources: list[Source], settings: DedupSettings) -> list[Source]:
    """Return sources with filtered rows. All sources are filtered together when the first row is requested."""
    filters = _Filters(run, sources, settings)
    return [replace(source, rows=_Rows(filters, index)) for index, source in enumerate(sources)]


def evaluation_rows(run: Run, settings: Decontamination | None) -> list[Iterable[Row]]:
    """Return the rows of each evaluation file, not yet read.

    Raises ConfigError for missing files, and DataError for files that can't be read.
    """
    config = run.config
    sources = {name: c.info["sources"] for name, c in config.selection.active.items()}
    reader = next((name for name, read in sources.items() if FILE in read and not any(map(is_ending, read))), "")
    rows: list[Iterable[Row]] = []
    problems = []
    for index, path in enumerate(settings.files if settings else ()):
        where = config.place(("dataset_decontamination", "files", index))
        if not Path(path).exists():
            problems.append(Problem(f"{path}: no such file", where, "no-file", advice(path)))
            continue
        entry = replace(config.entries[0], settings=DatasetSettings(path=path, type={}), reader=reader, source=FILE,
                        where=where, index=index, group="dataset_decontamination")  # fmt: skip
        rows.append(run.hooks.load_rows(run, entry))
    if problems:
        raise ConfigError(problems)
    return rows


class _Filters:
    """The filters of a run. They run once, and their result is shared by all sources."""

    def __init__(self, run: Run, sources: list[Source], settings: DedupSettings):
        self.run, self.sources, self.settings = run, sources, settings

    @functools.cached_property
    def evaluation(self) -> list[Iterable[Row]]:
        return evaluation_rows(self.run, self.settings.dataset_decontamination)

    @functools.cached_property
    def kept(self) -> list[Source]:
        """The sources after exact deduplication, near deduplication and decontamination, in this order."""
        sources = self.sources
        if self.settings.dataset_exact_deduplication:
            sources = self.drop_equal(sources)
        if near := self.settings.dataset_near_deduplication:
            sources = self.drop_near(sources, NearDeduplication() if near is True else near)
        if self.settings.dataset_decontamination:
            sources = self.drop_contaminated(sources, self.settings.dataset_decontamination)
        return sources

    def drop_equal(self, sources: list[Source]) -> list[Source]:
        from tunesmith_dedup.exact import equal_rows
        from tunesmith_dedup.table import Table

        table = Table(sources)
        return table.without(self.run, equal_rows(table), "exact duplicates", "equals")

    def drop_near(self, sources: list[Source], settings: NearDeduplication) -> list[Source]:
        from tunesmith_dedup.near import near_duplicates
        from tunesmith_dedup.table import Table

        table = Table(sources)
        dropped, limits = near_duplicates(table, settings)
        for limit, number in limits.items():
            if number:
                self.run.note(f"near duplicates: {limit}", f"{number:,} of {sum(table.sizes):,} rows")
        return table.without(self.run, dropped, "near duplicates", "is close to")

    def drop_contaminated(self, sources: list[Source], settings: Decontamination) -> list[Source]:
        from tunesmith_dedup.contamination import EvaluationIndex, contaminated
        from tunesmith_dedup.table import Table
        from tunesmith_dedup.texts import Splitter

        table = Table(sources)
        splitter = Splitter(settings.ngram, settings.unit, punctuation=False, short=False)
        evaluation = EvaluationIndex((row for rows in self.evaluation for row in rows), splitter)
        if evaluation.short:
            name = f"decontamination: evaluation rows skipped, shorter than {settings.ngram} {settings.unit}"
            self.run.note(name, f"{evaluation.short:,} of {len(evaluation.places):,}")
        dropped = contaminated(table, evaluation, splitter, settings.threshold)
        return table.without(self.run, dropped, "decontamination", "shares words with", evaluation.places)


class _Rows:
    """The rows of one source that are kept."""

    def __init__(self, filters: _Filters, index: int):
        self.filters, self.index = filters, index

    def __iter__(self) -> Iterator[Row]:
        return iter(self.filters.kept[self.index].rows)

    @property
    def fingerprint(self) -> Any:
        """The fingerprints of the rows and of the evaluation files, or None if any of them has none."""
        own = getattr(self.filters.sources[self.index].rows, "fingerprint", None)
        files = [getattr(rows, "fingerprint", None) for rows in self.filters.evaluation]
        return None if own is None or None in files else [own, *files]
