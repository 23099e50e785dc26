"""Append to JSON lines files, and rewind them so that a resumed run writes each step once."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.redact import clean

if TYPE_CHECKING:
    from tunesmith import LogRecord, Run

METRICS, TABLES = "metrics.jsonl", "tables.jsonl"


class Files:
    """The files of a run: a line for each record in metrics.jsonl, and one for each table in tables.jsonl.

    Until both files are rewound to the step that the run resumes from, nothing is appended.
    """

    def __init__(self, run: Run):
        self.run, self.resumed, self.rewound = run, run.step, False
        self.metrics, self.tables = Lines(run.output_dir / METRICS), Lines(run.output_dir / TABLES)

    def rewind(self) -> None:
        """Drop lines of later steps, and note damaged ones. tables.jsonl is created with its first table."""
        files = [self.metrics, *([self.tables] if self.tables.path.exists() else [])]
        for file in files:
            if damaged := file.rewind(self.resumed):
                self.run.note(file.path.name, f"incomplete lines of an interrupted run dropped: {damaged}")
        self.rewound = True

    def write(self, record: LogRecord) -> None:
        """Append the lines of a record, after those that could not be written before."""
        histograms = {name: list(map(_finite, values)) for name, values in record.histograms.items()}
        numbers = {name: _finite(value) for name, value in record.scalars().items()}
        self.metrics.add(numbers | ({"histograms": histograms} if histograms else {}))
        for name, rows in record.tables.items():
            own = self.run.output_dir / f"{name}.jsonl"
            if own.exists() and own not in (self.metrics.path, self.tables.path):
                continue  # the plugin of the table keeps a file of its own, with more than the record has
            cells = [{column: _finite(cell) for column, cell in row.items()} for row in rows]
            self.tables.add({"step": record.step, "table": name, "rows": cells})
        self.close()

    def close(self) -> None:
        """Try to write the lines that are still waiting."""
        if not self.rewound:
            self.rewind()
        self.metrics.flush()
        self.tables.flush()


class Lines:
    """A JSON lines file. Lines that the disk refuses wait for the next attempt, so the file has no gap."""

    def __init__(self, path: Path):
        self.path = path
        self.waiting: list[bytes] = []
        self._size: int | None = None  # bytes of complete lines, once this object has written any

    def add(self, values: Mapping[str, Any]) -> None:
        """Add a line, to be written by `flush`."""
        self.waiting.append(json.dumps(clean(values), allow_nan=False).encode() + b"\n")

    def flush(self) -> None:
        """Append the waiting lines and close the file. If the disk refuses them, raise OSError and keep them."""
        if not self.waiting:
            return
        with self.path.open("ab") as file:
            if self._size is not None and file.tell() > self._size:
                file.truncate(self._size)  # an earlier attempt wrote a part of a line
            self._size = file.tell() if self._size is None else min(self._size, file.tell())
            file.writelines(self.waiting)
        self._size += sum(map(len, self.waiting))
        self.waiting.clear()

    def rewind(self, step: int) -> int:
        """Drop damaged lines and the lines after `step` (0: all lines). Return the number of damaged lines.

        The file is created if it is missing. It is replaced atomically, so a run killed at any time leaves the old file
        or the new one.
        """
        path = self.path
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_bytes().splitlines() if step and path.exists() else []
        steps = [_step(line) for line in lines]
        kept = [line for line, number in zip(lines, steps, strict=True) if number is not None and number <= step]
        temporary = path.with_name(path.name + ".tmp")
        with temporary.open("wb") as file:
            file.writelines(line + b"\n" for line in kept)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        return steps.count(None)


def _finite(value: Any) -> Any:
    """Return None in place of a number that is not finite, because JSON has no NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _step(line: bytes) -> int | None:
    """Return the step of a line, or None if the line is not a JSON object with a step."""
    try:
        value = json.loads(line)
    except ValueError:  # not JSON, or not UTF-8
        return None
    step = value.get("step") if isinstance(value, dict) else None
    return step if isinstance(step, int) else None
