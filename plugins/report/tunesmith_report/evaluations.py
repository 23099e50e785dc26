"""Turn the evaluations in run.json, which commands added after training, into a table."""

from __future__ import annotations

from typing import NamedTuple

from tunesmith_report.folder import Folder
from tunesmith_report.formatting import cut, finite, moment, number

MOST = 50
"""Evaluations on the page, the last ones."""
LONGEST = 300
"""Characters of a name."""


class Evaluation(NamedTuple):
    """An evaluation of the run's model: when, which folder, on how many held-out examples, and what was measured."""

    when: str
    model: str
    held_out: int
    metrics: list[tuple[str, str]]


def evaluations(folder: Folder) -> tuple[list[Evaluation], int]:
    """Return the last evaluations, the newest first, and the number of those left out."""
    rows = []
    for entry in folder.entries("evaluations"):
        metrics = entry.get("metrics")
        named = metrics.items() if isinstance(metrics, dict) else ()
        values = [(cut(str(name), LONGEST)[0], _value(value)) for name, value in named]
        when = moment(entry.get("time")) or ""
        held_out = int(finite(entry.get("held_out")) or 0)
        rows.append(Evaluation(when, cut(str(entry.get("model", "?")), LONGEST)[0], held_out, values))
    return rows[::-1][:MOST], max(0, len(rows) - MOST)


def _value(value: object) -> str:
    return "not a number" if finite(value) is None else number(value)
