"""Show where the completions of an online method went: each one is in exactly one bucket."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from tunesmith_report.formatting import finite, number, share

TOTAL, PREFIX = "rollout/sequences", "rollout/"
BUCKETS = {
    "trained": "trained",
    "dead": "in groups with equal rewards",
    "truncated": "not ended within the longest length",
    "abstained": "without a reward",
    "over_budget": "beyond the budget",
    "stale": "too old",
}
COUNTED = {f"{PREFIX}{name}" for name in (*BUCKETS, "prompts", "sequences", "tokens", "kept")}
"""Totals of the run, which the ledger shows instead of curves that can only rise."""
COLUMNS = 48
"""Columns of the drawing over time."""


@dataclass
class Ledger:
    """The buckets of a run: (CSS class, sequences, label) of each, the total, and what does not add up.

    columns: for each interval of steps, the percentages (class, start, size) of its sequences.
    """

    parts: list[tuple[str, int, str]]
    total: int
    tokens: int
    problem: str
    columns: list[list[tuple[str, float, float]]] = field(default_factory=list)


def ledger_of(lines: Sequence[Mapping[str, Any]]) -> Ledger | None:
    """Return the ledger of the last line that has one, or None for a method that generates nothing."""
    counted = [line for line in lines if finite(line.get(TOTAL))]
    if not counted:
        return None
    last = counted[-1]
    names = [name for name in BUCKETS if finite(last.get(PREFIX + name)) is not None]
    parts = [(name, int(last[PREFIX + name]), BUCKETS[name]) for name in names]
    total, added = int(last[TOTAL]), sum(part[1] for part in parts)
    problem = "" if added == total else f"The parts add up to {number(added)}, not to {number(total)} completions."
    return Ledger(parts, total, int(finite(last.get(f"{PREFIX}tokens")) or 0), problem, _columns(counted, names))


def _columns(lines: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[list[tuple[str, float, float]]]:
    """Return the stacked shares of each interval. Counts are totals of the run, so an interval is a difference."""
    every = max(1, len(lines) // COLUMNS)
    kept = [{}, *lines[every - 1 :: every]]
    columns = []
    for before, after in pairwise(kept):
        counts = [max(0.0, (finite(after.get(PREFIX + n)) or 0) - (finite(before.get(PREFIX + n)) or 0)) for n in names]
        total, start, column = sum(counts), 0.0, []
        for name, count in zip(names, counts, strict=True):
            if count:
                column.append((name, round(start, 2), round(share(count, total), 2)))
                start += share(count, total)
        if column:
            columns.append(column)
    return columns
