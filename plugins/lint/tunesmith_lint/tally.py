"""What is remembered of the rows of an entry: numbers alone, no example."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tunesmith import DatasetSpec
from tunesmith_lint.looks import Look

POINTS = (50, 90, 99)


@dataclass
class Tally:
    """The examples of one entry: how long, how many tokens are trained, labels, and the lengths of good and bad
    answers."""

    spec: DatasetSpec
    rows: int = 0
    answered: int = 0
    """Rows with something trained."""
    refused: int = 0
    tokens: int = 0
    lengths: array[int] = field(default_factory=lambda: array("l"))
    trained: array[int] = field(default_factory=lambda: array("l"))
    labels: int = 0
    good: int = 0
    sides: int = 0
    lengths_by_side: list[list[int]] = field(default_factory=lambda: [[0, 0], [0, 0]])
    """Tokens and number of the bad answers, and of the good ones."""

    @property
    def name(self) -> str:
        return f"{self.spec.group}[{self.spec.index}]"

    def add(self, look: Look) -> None:
        self.rows += 1
        self.answered += look.example.trained_tokens > 0
        self.tokens += look.example.width
        self.lengths.append(look.example.longest)
        self.trained.append(look.example.trained_tokens)
        if look.kind == "pair" and len(look.completions) == 2:
            self.sides += 1
            for good, tokens in zip((True, False), look.trained, strict=True):
                self._count(good, len(tokens))
        labels = labels_of(look)
        self.labels += len(labels)
        self.good += sum(labels)
        if look.kind == "labelled" and labels:
            self.sides += 1
            self._count(labels[0], sum(map(len, look.trained)))

    def _count(self, good: bool, tokens: int) -> None:
        self.lengths_by_side[good][0] += tokens
        self.lengths_by_side[good][1] += 1

    @property
    def mean_lengths(self) -> tuple[float, float]:
        """Mean tokens of good and of bad answers; 0 where there are none."""
        (bad, of_bad), (good, of_good) = self.lengths_by_side
        return good / of_good if of_good else 0.0, bad / of_bad if of_bad else 0.0

    def numbers(self) -> dict[str, Any]:
        """The statistics of the entry as JSON values."""
        made: dict[str, Any] = {"entry": self.name, "path": self.spec.settings.path, "type": self.spec.type,
                                "rows": self.rows + self.refused, "refused": self.refused, "tokens": self.tokens,
                                "trained_tokens": sum(self.trained)}  # fmt: skip
        if self.rows:
            made |= {"lengths": points(self.lengths), "trained": points(self.trained)}
        if self.labels:
            made["labels"] = {"number": self.labels, "good": self.good}
        if self.sides:
            good, bad = self.mean_lengths
            made["answers"] = {"good": round(good, 1), "bad": round(bad, 1)}
        return made


def labels_of(look: Look) -> list[bool]:
    """The labels of an example: one of a labelled row, one for each step of a stepwise one."""
    if look.kind == "labelled" and "label" in look.example.columns:
        return [bool(look.example.columns["label"])]
    if look.kind == "stepwise":
        steps = [s.columns["label"][s.weights != 0] for s in look.completions if "label" in s.columns]
        return [bool(label) for labels in steps for label in labels]
    return []


def points(values: Sequence[int]) -> dict[str, int]:
    """Percentiles, each a value that occurs."""
    found = np.percentile(np.asarray(values), [0, *POINTS, 100], method="higher")
    return {name: int(value) for name, value in zip(("least", *map(str, POINTS), "most"), found, strict=True)}
