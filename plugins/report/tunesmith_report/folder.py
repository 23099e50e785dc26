"""What lies in a run's folder, read tolerantly: what is missing, torn or strange is left out, and said."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunesmith_report.words import clean

CRASH_LINES = 30
FURTHEST = 10**15  # a step beyond it is a damaged line


@dataclass
class Folder:
    """A run's folder: run.json with what the run itself knows over it, the lines of metrics and samples, the crash."""

    name: str
    record: dict[str, Any]
    metrics: list[dict[str, Any]] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)
    crash: list[str] = field(default_factory=list)
    crash_left_out: int = 0
    troubles: dict[str, str] = field(default_factory=dict)
    """File -> what of it could not be read."""

    def mapping(self, key: str) -> dict[str, Any]:
        """An object of the record, empty where it is missing or something else."""
        value = self.record.get(key)
        return value if isinstance(value, dict) else {}

    def entries(self, key: str) -> list[dict[str, Any]]:
        """The objects of a list of the record."""
        value = self.record.get(key)
        return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []

    @property
    def config(self) -> dict[str, Any]:
        return self.mapping("config")


def read(path: Path, known: Mapping[str, Any] | None = None) -> Folder:
    """Read a folder; `known` is what the run knows better than its run.json. Raises nothing that a file can cause."""
    folder = Folder(path.resolve().name, {})
    folder.record = {**_record(path / "run.json", folder), **(known or {})}
    metrics = [line for line in _lines(path / "metrics.jsonl", folder) if _has_step(line)]
    folder.metrics = sorted(metrics, key=lambda line: line["step"])
    folder.samples = [line for line in _lines(path / "samples.jsonl", folder) if _is_sample(line)]
    if folder.record.get("status") == "failed":  # else it is left from an earlier attempt
        lines = clean(_text(path / "crash.txt", folder)).rstrip().splitlines()  # whole: a secret may span lines
        folder.crash, folder.crash_left_out = lines[-CRASH_LINES:], max(0, len(lines) - CRASH_LINES)
    return folder


def _record(path: Path, folder: Folder) -> dict[str, Any]:
    try:
        value = json.loads(_text(path, folder) or "{}")
    except (ValueError, RecursionError) as error:
        folder.troubles[path.name] = f"can't be read: {error}"
        return {}
    if not isinstance(value, dict):
        folder.troubles[path.name] = "can't be read: it holds no object"
        return {}
    if not value:
        folder.troubles.setdefault(path.name, "is not there")
    return value


def _text(path: Path, folder: Folder) -> str:
    try:
        return path.read_text("utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    except OSError as error:
        folder.troubles[path.name] = f"can't be read: {error.strerror}"
        return ""


def _lines(path: Path, folder: Folder) -> Iterator[dict[str, Any]]:
    """The objects of a file of JSON lines; others are counted."""
    damaged = 0
    try:
        with path.open("rb") as file:
            for line in file:
                try:
                    value = json.loads(line)
                except (ValueError, RecursionError):  # not JSON, not UTF-8: torn by an interruption
                    value = None
                if isinstance(value, dict):
                    yield value
                elif line.strip():
                    damaged += 1
    except FileNotFoundError:
        return
    except OSError as error:
        folder.troubles[path.name] = f"can't be read: {error.strerror}"
    if damaged:
        folder.troubles[path.name] = f"{damaged:,} incomplete or damaged {'line' if damaged == 1 else 'lines'} left out"


def _has_step(line: dict[str, Any]) -> bool:
    step = line.get("step")
    return type(step) is int and -FURTHEST < step < FURTHEST


def _is_sample(line: dict[str, Any]) -> bool:
    return _has_step(line) and all(isinstance(line.get(key), str) for key in ("when", "prompt", "completion"))
