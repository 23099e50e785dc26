"""How long a metric may go without improving."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


@dataclass
class Patience:
    """Counts evaluations in a row that did not beat the best value by more than `threshold`; a checkpoint holds it.

    The best value moves with an improvement only, so many small steps that together pass the threshold count as one.
    A value that is not a number never improves.
    """

    patience: int
    threshold: float = 0.0
    greater: bool = False
    best: float | None = None
    bad: int = 0

    def exhausted(self, value: float) -> bool:
        """Count a value; whether it is the last that was waited for."""
        if self._improves(value):
            self.best, self.bad = value, 0
        else:
            self.bad += 1
        return self.bad >= self.patience

    def _improves(self, value: float) -> bool:
        if self.best is None:
            return not math.isnan(value)  # nothing could ever beat it
        return value > self.best + self.threshold if self.greater else value < self.best - self.threshold

    @property
    def best_text(self) -> str:
        return "nothing (it is not a number)" if self.best is None else f"{self.best:.6g}"

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "bad": self.bad}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.bad = state["best"], state["bad"]
