"""Read the findings of the plugin diagnosis from the notes of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tunesmith_report.folder import Folder
from tunesmith_report.formatting import cut, finite, number

NOTE = "findings"
SEVERITIES = ("warning", "note")
LONGEST = 1000


@dataclass
class Found:
    """A finding as the page shows it. steps: the first and the last step at which it held."""

    name: str
    severity: str
    metric: str
    steps: tuple[int, int]
    message: str
    advice: str
    limit: str


def findings_of(folder: Folder) -> list[Found]:
    """Return the findings, warnings first; none if the note has another form."""
    note = folder.mapping("notes").get(NOTE)
    rows = [row for one in note if (row := _finding(one))] if isinstance(note, list) else []
    return sorted(rows, key=lambda row: SEVERITIES.index(row.severity))


def _finding(one: Any) -> Found | None:
    texts = [one.get(key) for key in ("id", "metric", "message", "advice")] if isinstance(one, dict) else []
    if not texts or not all(isinstance(text, str) for text in texts) or one.get("severity") not in SEVERITIES:
        return None
    steps = one.get("steps")
    numbers = [finite(step) for step in steps] if isinstance(steps, list) else []
    if len(numbers) != 2 or numbers[0] is None or numbers[1] is None:
        return None
    value, limit = finite(one.get("value")), finite(one.get("threshold"))
    measured = "" if value is None or limit is None else f"{number(value)}, limit {number(limit)}"
    name, metric, message, advice = (cut(text, LONGEST)[0] for text in texts)
    return Found(name, one["severity"], metric, (int(numbers[0]), int(numbers[1])), message, advice, measured)
