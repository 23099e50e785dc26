"""Read what a run writes into its folder, also while it is being written: run.json and metrics.jsonl."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def json_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file, or an empty dict if there is no readable one."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def last_record(folder: Path) -> dict[str, Any]:
    """Return the content of a folder's run.json, or an empty dict if there is no readable one."""
    return json_object(folder / "run.json")


def metrics_of(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a folder's metrics.jsonl that have a step. Damaged and incomplete lines are skipped."""
    try:
        with (folder / "metrics.jsonl").open("rb") as file:
            for line in file:
                try:
                    value = json.loads(line)
                except (ValueError, RecursionError):
                    continue
                if isinstance(value, dict) and type(value.get("step")) is int:
                    yield value
    except OSError:
        return
