"""Count consecutive losses above a threshold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass
class Watch:
    """A counter of consecutive losses above `threshold`. NaN counts as above. The counter is stored in checkpoints."""

    threshold: float
    patience: int
    high: int = 0

    def exhausted(self, loss: float) -> bool:
        """Add a loss. Return True if the last `patience` losses were all above the threshold."""
        self.high = 0 if loss <= self.threshold else self.high + 1
        return self.high >= self.patience

    def state_dict(self) -> dict[str, Any]:
        return {"high": self.high}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.high = state["high"]
