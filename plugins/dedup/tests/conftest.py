"""Fixtures: the plugin applied to rows in memory, and JSON lines files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tunesmith_dedup import DedupSettings
from tunesmith_dedup.filtered import filtered

from tunesmith import Row, Source


class Lines:
    """The rows of a file."""

    def __init__(self, name: str, records: Iterable[dict[str, Any]]):
        self.name, self.records = name, list(records)

    def __iter__(self) -> Iterator[Row]:
        return (Row(record, f"{self.name}:{n}") for n, record in enumerate(self.records, 1))


@dataclass
class Dedup:
    """The plugin applied to rows in memory, and the notes that it adds."""

    notes: dict[str, str] = field(default_factory=dict)

    def sources(self, files: dict[str, list[dict[str, Any]]], **keys: Any) -> list[Source]:
        """Return the filtered sources. Files whose names begin with "test" are entries of test_datasets."""
        unfiltered = []
        for index, name in enumerate(files):
            group = "test_datasets" if name.startswith("test") else "datasets"
            spec: Any = SimpleNamespace(group=group, index=index, where="run:1", settings=SimpleNamespace(path=name))
            unfiltered.append(Source(spec, Lines(name, files[name])))
        run: Any = SimpleNamespace(note=self.notes.__setitem__)
        return filtered(run, unfiltered, DedupSettings.model_validate(keys))

    def kept(self, files: dict[str, list[dict[str, Any]]], **keys: Any) -> dict[str, list[int]]:
        """Return the line numbers of the rows that are kept, by file."""
        sources = self.sources(files, **keys)
        return {s.spec.settings.path: [int(row.where.rpartition(":")[2]) for row in s.rows] for s in sources}


@pytest.fixture
def dedup() -> Dedup:
    return Dedup()


@pytest.fixture
def jsonl(tmp_path: Path) -> Callable[[str, list[dict[str, Any]]], str]:
    def write(name: str, records: list[dict[str, Any]]) -> str:
        (tmp_path / name).write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
        return str(tmp_path / name)

    return write
