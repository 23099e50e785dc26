"""Read the files in a run's folder. Missing or damaged content is skipped and reported, never raised."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunesmith_report.formatting import clean

CRASH_LINES = 30
MAX_STEP = 10**15  # a line with a larger step is damaged


@dataclass
class Folder:
    """The content of a run's folder.

    record: run.json, updated with the live values of the run. crash: the last lines of crash.txt.
    """

    name: str
    record: dict[str, Any]
    metrics: list[dict[str, Any]] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)
    crash: list[str] = field(default_factory=list)
    crash_left_out: int = 0
    problems: dict[str, str] = field(default_factory=dict)
    """A dictionary from file name to the problem with reading it."""

    def mapping(self, key: str) -> dict[str, Any]:
        """Return an object of the record, or an empty one if it is missing or has another type."""
        value = self.record.get(key)
        return value if isinstance(value, dict) else {}

    def entries(self, key: str) -> list[dict[str, Any]]:
        """Return the objects in a list of the record."""
        value = self.record.get(key)
        return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []

    @property
    def config(self) -> dict[str, Any]:
        return self.mapping("config")


def read(path: Path, live: Mapping[str, Any] | None = None) -> Folder:
    """Read a folder. Missing and damaged files never raise an error.

    live: values of the running process that replace those in run.json.
    """
    folder = Folder(path.resolve().name, {})
    folder.record = {**_record(path / "run.json", folder), **(live or {})}
    metrics = [line for line in _lines(path / "metrics.jsonl", folder) if _has_step(line)]
    folder.metrics = sorted(metrics, key=lambda line: line["step"])
    folder.samples = [line for line in _lines(path / "samples.jsonl", folder) if _is_sample(line)]
    if folder.record.get("status") == "failed":  # otherwise crash.txt is from an earlier attempt
        lines = (
            clean(_text(path / "crash.txt", folder)).rstrip().splitlines()
        )  # clean before splitting: a secret may span lines
        folder.crash, folder.crash_left_out = lines[-CRASH_LINES:], max(0, len(lines) - CRASH_LINES)
    return folder


def _record(path: Path, folder: Folder) -> dict[str, Any]:
    try:
        value = json.loads(_text(path, folder) or "{}")
    except (ValueError, RecursionError) as error:
        folder.problems[path.name] = f"can't be read: {error}"
        return {}
    if not isinstance(value, dict):
        folder.problems[path.name] = "can't be read: must be a JSON object"
        return {}
    if not value:
        folder.problems.setdefault(path.name, "no such file")
    return value


def _text(path: Path, folder: Folder) -> str:
    try:
        return path.read_text("utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    except OSError as error:
        folder.problems[path.name] = f"can't be read: {error.strerror}"
        return ""


def _lines(path: Path, folder: Folder) -> Iterator[dict[str, Any]]:
    """Yield the objects in a file of JSON lines, and count the other lines."""
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
        folder.problems[path.name] = f"can't be read: {error.strerror}"
    if damaged:
        folder.problems[path.name] = f"{damaged:,} incomplete or damaged {'line' if damaged == 1 else 'lines'} skipped"


def _has_step(line: dict[str, Any]) -> bool:
    step = line.get("step")
    return type(step) is int and -MAX_STEP < step < MAX_STEP


def _is_sample(line: dict[str, Any]) -> bool:
    return _has_step(line) and all(isinstance(line.get(key), str) for key in ("when", "prompt", "completion"))
