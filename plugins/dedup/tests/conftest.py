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
    """Rows of a file."""

    def __init__(self, name: str, records: Iterable[dict[str, Any]]):
        self.name, self.records = name, list(records)

    def __iter__(self) -> Iterator[Row]:
        return (Row(record, f"{self.name}:{n}") for n, record in enumerate(self.records, 1))


@dataclass
class Dedup:
    """The plugin on made rows: what is left of each file, and the notes."""

    notes: dict[str, str] = field(default_factory=dict)

    def sources(self, files: dict[str, list[dict[str, Any]]], **keys: Any) -> list[Source]:
        """The filtered sources; a file whose name begins with "test" is one of test_datasets."""
        given = []
        for index, name in enumerate(files):
            group = "test_datasets" if name.startswith("test") else "datasets"
            spec: Any = SimpleNamespace(group=group, index=index, where="run:1", settings=SimpleNamespace(path=name))
            given.append(Source(spec, Lines(name, files[name])))
        run: Any = SimpleNamespace(note=self.notes.__setitem__)
        return filtered(run, given, DedupSettings.model_validate(keys))

    def kept(self, files: dict[str, list[dict[str, Any]]], **keys: Any) -> dict[str, list[int]]:
        """Lines that are left of each file."""
        found = self.sources(files, **keys)
        return {s.spec.settings.path: [int(row.where.rpartition(":")[2]) for row in s.rows] for s in found}


@pytest.fixture
def dedup() -> Dedup:
    return Dedup()


@pytest.fixture
def jsonl(tmp_path: Path) -> Callable[[str, list[dict[str, Any]]], str]:
    def write(name: str, records: list[dict[str, Any]]) -> str:
        (tmp_path / name).write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
        return str(tmp_path / name)

    return write
