"""The sources of a run without the rows that the settings drop."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith import ConfigError, Problem
from tunesmith.config.settings import DatasetSettings
from tunesmith.files.paths import FILE, advice
from tunesmith_dedup import Decontamination, DedupSettings, NearDeduplication

if TYPE_CHECKING:
    from tunesmith import Row, Run, Source


def filtered(run: Run, sources: list[Source], settings: DedupSettings) -> list[Source]:
    """The sources with rows that are looked at, all together, once the first of them is asked for."""
    work = _Work(run, sources, settings)
    return [replace(source, rows=_Rows(work, index)) for index, source in enumerate(sources)]


def evaluation_rows(run: Run, settings: Decontamination | None) -> list[Iterable[Row]]:
    """The rows of each evaluation file, not yet read. Raises ConfigError for files that are not there, DataError."""
    config = run.config
    reader = next((word for word, c in config.selection.active.items() if FILE in c.info["sources"]), "")
    found: list[Iterable[Row]] = []
    problems = []
    for index, path in enumerate(settings.files if settings else ()):
        where = config.document.where(("dataset_decontamination", "files", index), value=True)
        if not Path(path).exists():
            problems.append(Problem(f"{path}: no such file", where, "no-file", advice(path)))
            continue
        entry = replace(config.entries[0], settings=DatasetSettings(path=path, type={}), reader=reader, source=FILE,
                        where=where, index=index, group="dataset_decontamination")  # fmt: skip
        found.append(run.hooks.load_rows(run, entry))
    if problems:
        raise ConfigError(problems)
    return found


class _Work:
    """What is dropped of all sources, found out once."""

    def __init__(self, run: Run, sources: list[Source], settings: DedupSettings):
        self.run, self.sources, self.settings = run, sources, settings

    @functools.cached_property
    def evaluation(self) -> list[Iterable[Row]]:
        return evaluation_rows(self.run, self.settings.dataset_decontamination)

    @functools.cached_property
    def kept(self) -> list[Source]:
        """The sources without what is equal, then without what is nearly so, then without what is evaluated on."""
        sources = self.sources
        if self.settings.dataset_exact_deduplication:
            sources = self.without_equal(sources)
        if near := self.settings.dataset_near_deduplication:
            sources = self.without_near(sources, NearDeduplication() if near is True else near)
        if self.settings.dataset_decontamination:
            sources = self.without_known(sources, self.settings.dataset_decontamination)
        return sources

    def without_equal(self, sources: list[Source]) -> list[Source]:
        from tunesmith_dedup.exact import equal_rows
        from tunesmith_dedup.table import Table

        table = Table(sources)
        return table.without(self.run, equal_rows(table), "exact duplicates", "equals")

    def without_near(self, sources: list[Source], settings: NearDeduplication) -> list[Source]:
        from tunesmith_dedup.near import near_duplicates
        from tunesmith_dedup.table import Table

        table = Table(sources)
        dropped, unseen = near_duplicates(table, settings)
        for which, number in unseen.items():
            if number:
                self.run.note(f"near duplicates: {which}", f"{number:,} of {sum(table.sizes):,} rows")
        return table.without(self.run, dropped, "near duplicates", "is close to")

    def without_known(self, sources: list[Source], settings: Decontamination) -> list[Source]:
        from tunesmith_dedup.contamination import Held, contaminated
        from tunesmith_dedup.table import Table
        from tunesmith_dedup.texts import Splitter

        table = Table(sources)
        splitter = Splitter(settings.ngram, settings.unit, punctuation=False, short=False)
        held = Held((row for rows in self.evaluation for row in rows), splitter)
        if held.short:
            name = f"decontamination: evaluation rows of fewer than {settings.ngram} {settings.unit}, not looked for"
            self.run.note(name, f"{held.short:,} of {len(held.places):,}")
        dropped = contaminated(table, held, splitter, settings.threshold)
        return table.without(self.run, dropped, "decontamination", "shares words with", held.places)


class _Rows:
    """The rows that are kept of one source."""

    def __init__(self, work: _Work, index: int):
        self.work, self.index = work, index

    def __iter__(self) -> Iterator[Row]:
        return iter(self.work.kept[self.index].rows)

    @property
    def fingerprint(self) -> Any:
        """What the choice depends on beside all rows and the settings: the evaluation files. None if one has none."""
        own = getattr(self.work.sources[self.index].rows, "fingerprint", None)
        files = [getattr(rows, "fingerprint", None) for rows in self.work.evaluation]
        return None if own is None or None in files else [own, *files]
