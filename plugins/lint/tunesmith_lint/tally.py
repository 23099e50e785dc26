"""Accumulate the statistics of a dataset entry. Only numbers are kept, no examples."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tunesmith import DatasetSpec
from tunesmith_lint.row_view import RowView

POINTS = (50, 90, 99)
"""Percentiles that are reported."""


@dataclass
class Tally:
    """The statistics of one dataset entry: lengths, trained tokens, labels, and lengths of good and bad answers."""

    spec: DatasetSpec
    rows: int = 0
    answered: int = 0
    """Rows with at least one trained token."""
    refused: int = 0
    tokens: int = 0
    lengths: array[int] = field(default_factory=lambda: array("l"))
    trained: array[int] = field(default_factory=lambda: array("l"))
    labels: int = 0
    good: int = 0
    sides: int = 0
    """Rows that contribute to `lengths_by_side`: pairs and labelled answers."""
    lengths_by_side: list[list[int]] = field(default_factory=lambda: [[0, 0], [0, 0]])
    """[tokens, answers] of the bad answers, then of the good ones."""

    @property
    def name(self) -> str:
        return f"{self.spec.group}[{self.spec.index}]"

    def add(self, view: RowView) -> None:
        self.rows += 1
        self.answered += view.example.trained_tokens > 0
        self.tokens += view.example.width
        self.lengths.append(view.example.longest)
        self.trained.append(view.example.trained_tokens)
        if view.kind == "pair" and len(view.completions) == 2:
            self.sides += 1
            for good, tokens in zip((True, False), view.trained, strict=True):
                self._add_answer(good, len(tokens))
        labels = labels_of(view)
        self.labels += len(labels)
        self.good += sum(labels)
        if view.kind == "labelled" and labels:
            self.sides += 1
            self._add_answer(labels[0], sum(map(len, view.trained)))

    def _add_answer(self, good: bool, tokens: int) -> None:
        self.lengths_by_side[good][0] += tokens
        self.lengths_by_side[good][1] += 1

    @property
    def mean_lengths(self) -> tuple[float, float]:
        """The mean number of tokens of good answers and of bad answers; 0 if there are none."""
        (bad_tokens, bad_answers), (good_tokens, good_answers) = self.lengths_by_side
        return good_tokens / good_answers if good_answers else 0.0, bad_tokens / bad_answers if bad_answers else 0.0

    def statistics(self) -> dict[str, Any]:
        """Return the statistics of the entry as JSON values."""
        result: dict[str, Any] = {"entry": self.name, "path": self.spec.settings.path, "type": self.spec.type,
                                  "rows": self.rows + self.refused, "refused": self.refused, "tokens": self.tokens,
                                  "trained_tokens": sum(self.trained)}  # fmt: skip
        if self.rows:
            result |= {"lengths": percentiles(self.lengths), "trained": percentiles(self.trained)}
        if self.labels:
            result["labels"] = {"number": self.labels, "good": self.good}
        if self.sides:
            good, bad = self.mean_lengths
            result["answers"] = {"good": round(good, 1), "bad": round(bad, 1)}
        return result


def labels_of(view: RowView) -> list[bool]:
    """Return the labels of an example: one for a labelled row, one per step for a stepwise row."""
    if view.kind == "labelled" and "label" in view.example.columns:
        return [bool(view.example.columns["label"])]
    if view.kind == "stepwise":
        steps = [s.columns["label"][s.weights != 0] for s in view.completions if "label" in s.columns]
        return [bool(label) for labels in steps for label in labels]
    return []


def percentiles(values: Sequence[int]) -> dict[str, int]:
    """Return the least, the POINTS and the most of the values. Each is a value that occurs."""
    result = np.percentile(np.asarray(values), [0, *POINTS, 100], method="higher")
    return {name: int(value) for name, value in zip(("least", *map(str, POINTS), "most"), result, strict=True)}
