"""Group the completions of logged steps by prompt, with their rewards and advantages."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunesmith_report.folder import MAX_STEP, Folder
from tunesmith_report.formatting import clean, cut, finite, number
from tunesmith_report.samples import SPECIAL

FILE, TABLE = "tables.jsonl", "completions"
STEPS, ROWS = 200, 64
"""Steps on the page, and rows of a step; tables.jsonl has all."""
SHOWN, LONGEST = 420, 2400
"""Characters that are visible at once, and those that can be unfolded."""
REWARD = "reward:"
ROLES = {"system", "developer", "user", "human", "assistant", "model", "tool", "ipython"}
"""Names of speakers, which templates write on the line after a marker."""


@dataclass
class Text:
    """A text in two parts: what is visible, what is folded away, and the number of characters left out."""

    visible: str
    folded: str = ""
    left_out: int = 0

    @property
    def size(self) -> int:
        return len(self.folded) + self.left_out


@dataclass
class Row:
    """A completion: (name, text, fraction of the range) of each reward, and its rank in the group."""

    text: Text
    rewards: list[tuple[str, str, float | None]]
    total: float
    advantage: float | None
    finish: str
    rank: str = ""

    @property
    def cut_off(self) -> bool:
        return self.finish in ("length", "truncated")

    @property
    def quality(self) -> float:
        """The advantage, or the sum of the rewards where it is unknown."""
        return self.total if self.advantage is None else self.advantage


@dataclass
class Group:
    """The completions of a prompt, the best first. The folded part of a prompt is its beginning."""

    prompt: Text
    rows: list[Row] = field(default_factory=list)

    @property
    def idle(self) -> bool:
        """True if no completion is better than another, so that the group trains nothing.

        Loggers get the first completions of a round, so a group may lack some: advantages that are equal and not 0 are
        those of a group with others.
        """
        return len(self.rows) > 1 and not any(row.rank or row.advantage for row in self.rows)


@dataclass
class Step:
    """A logged step: its groups, and the mean of each reward over the rows that are shown."""

    step: int
    groups: list[Group]
    means: list[tuple[str, str]]
    rows_left_out: int = 0


def read_tables(path: Path, folder: Folder) -> tuple[list[Mapping[str, Any]], int]:
    """Return the lines of tables.jsonl with completions, evenly spread STEPS at most, and the number of other steps.

    The first and the last line are among them. A file may have gigabytes: no more lines than these are in memory.
    """
    kept: list[tuple[int, bytes]] = []
    number, every, last = 0, 1, None
    try:
        with (path / FILE).open("rb") as file:
            for line in file:
                if b'"completions"' not in line[:200]:
                    continue
                last = (number, line)
                if number % every == 0:
                    kept.append(last)
                if len(kept) > STEPS:
                    every *= 2
                    kept = [one for one in kept if one[0] % every == 0]
                number += 1
    except FileNotFoundError:
        return [], 0
    except OSError as error:
        folder.problems[FILE] = f"can't be read: {error.strerror}"
    if last and last not in kept:
        kept.append(last)
    return [value for _, line in kept if (value := _table(line)) is not None], number - len(kept)


def _table(line: bytes) -> Mapping[str, Any] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):  # torn by an interruption
        return None
    step, rows = (value.get("step"), value.get("rows")) if isinstance(value, dict) else (None, None)
    valid = type(step) is int and -MAX_STEP < step < MAX_STEP and isinstance(rows, list)
    return value if valid and value.get("table") == TABLE else None


def steps_of(tables: Iterable[Mapping[str, Any]]) -> list[Step]:
    """Return the steps in order, each with its completions grouped by prompt."""
    steps = [_step(table) for table in tables]
    return sorted((step for step in steps if step.groups), key=lambda step: step.step)


def _step(table: Mapping[str, Any]) -> Step:
    valid = [row for row in table["rows"] if isinstance(row, dict) and _is_text(row, "prompt", "completion")]
    rows = valid[:ROWS]
    names = list(dict.fromkeys(key for row in rows for key in row if key.startswith(REWARD)))
    ranges = {name: _range(rows, name) for name in names}
    groups: dict[str, Group] = {}
    for row in rows:
        if row["prompt"] not in groups:
            groups[row["prompt"]] = Group(_prompt(row["prompt"]))
        groups[row["prompt"]].rows.append(_row(row, ranges))
    for group in groups.values():
        _rank(group)
    means = [(name, sum(v) / len(v)) for name in names if (v := list(_values(rows, name)))]
    shown = [(_name(name), number(round(mean, 4))) for name, mean in means]
    return Step(table["step"], list(groups.values()), shown, len(valid) - len(rows))


def _is_text(row: Mapping[str, Any], *columns: str) -> bool:
    return all(isinstance(row.get(column), str) for column in columns)


def _name(column: str) -> str:
    return str(clean(column.removeprefix(REWARD)))[:60]


def _values(rows: Iterable[Mapping[str, Any]], column: str) -> Iterator[float]:
    return (value for row in rows if (value := finite(row.get(column))) is not None)


def _range(rows: Iterable[Mapping[str, Any]], column: str) -> tuple[float, float]:
    values = [0.0, *_values(rows, column)]
    return min(values), max(values)


def _row(row: Mapping[str, Any], ranges: Mapping[str, tuple[float, float]]) -> Row:
    text, left_out = cut(row["completion"], LONGEST)
    visible, folded = _split(text)
    rewards, total = [], 0.0
    for column, (low, high) in ranges.items():
        value = finite(row.get(column))
        total += value or 0.0
        fraction = None if value is None else (value - low) / (high - low) if high > low else 0.0
        rewards.append((_name(column), "none" if value is None else number(value), fraction))
    finish = str(clean(row["finish"]))[:40] if isinstance(row.get("finish"), str) else ""
    return Row(Text(visible, folded, left_out), rewards, total, finite(row.get("advantage")), finish)


def _split(text: str) -> tuple[str, str]:
    """Split a text after about SHOWN characters, at a line end or a space if there is one nearby."""
    if len(text) <= SHOWN * 1.25:
        return text, ""
    place = max(text.rfind("\n", SHOWN // 2, SHOWN), text.rfind(" ", SHOWN - 40, SHOWN))
    place = place if place > 0 else SHOWN
    return text[:place], text[place:]


def _prompt(prompt: str) -> Text:
    """Return the end of a prompt as visible, because that is where the question is."""
    text = clean(readable(prompt))
    left_out, text = max(0, len(text) - LONGEST), text[-LONGEST:]
    if len(text) <= SHOWN * 1.25:
        return Text(text, "", left_out)
    place = text.find(" ", len(text) - SHOWN, len(text) - SHOWN + 40)
    place = place + 1 if place > 0 else len(text) - SHOWN
    return Text(text[place:], text[:place], left_out)


def readable(prompt: str) -> str:
    """Return the turns of a prompt without the markers of a template, with their roles if there are several."""
    turns: list[tuple[str, str]] = []
    role = ""
    for part in SPECIAL.sub("\0", prompt).split("\0"):
        first, _, rest = part.lstrip().partition("\n")
        if first.strip() in ROLES:
            role, part = first.strip(), rest
        if part.strip():
            turns.append((role, part.strip()))
    return turns[0][1] if len(turns) == 1 else "\n".join(f"{role}: {text}" if role else text for role, text in turns)


def _rank(group: Group) -> None:
    """Sort the rows of a group, and mark the best and the worst if there is a difference."""

    group.rows.sort(key=lambda row: (row.quality, row.total), reverse=True)
    best, worst = group.rows[0].quality, group.rows[-1].quality
    for row in group.rows:
        row.rank = "" if best == worst else {best: "best", worst: "worst"}.get(row.quality, "")
