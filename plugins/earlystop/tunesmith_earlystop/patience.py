"""Count evaluations without improvement."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


@dataclass
class Patience:
    """A counter of consecutive evaluations that did not exceed the best value by more than `threshold`.

    The best value changes only with an improvement, so several small improvements count as one once their sum exceeds
    the threshold. NaN is never an improvement. The counter is stored in checkpoints.
    """

    patience: int
    threshold: float = 0.0
    greater: bool = False
    best: float | None = None
    bad: int = 0

    def exhausted(self, value: float) -> bool:
        """Add a value. Return True if none of the last `patience` values was an improvement."""
        if self._improves(value):
            self.best, self.bad = value, 0
        else:
            self.bad += 1
        return self.bad >= self.patience

    def _improves(self, value: float) -> bool:
        if self.best is None:
            return not math.isnan(value)  # a best value of NaN could never be exceeded
        return value > self.best + self.threshold if self.greater else value < self.best - self.threshold

    @property
    def best_text(self) -> str:
        return "its first value (not a number)" if self.best is None else f"{self.best:.6g}"

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "bad": self.bad}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.bad = state["best"], state["bad"]
