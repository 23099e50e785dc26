"""An entropy coefficient that follows the entropy (Skywork-OR1, arXiv 2505.22312, section 4)."""

from __future__ import annotations

from typing import Any

from tunesmith import StepRecord
from tunesmith_grpo import TRL
from tunesmith_grpo.loss_names import HIGH_ENTROPY


class AdaptiveEntropy:
    """The coefficient of the entropy, a state of the run.

    After each step it grows by a constant if the mean entropy of tokens is at most the target, and shrinks otherwise.
    The tokens are those that top_entropy_quantile keeps.
    It is applied in the next step only if the entropy was at most the target.
    """

    def __init__(self, trl: TRL):
        self.trl = trl
        self.coefficient, self.entropy = trl.entropy_coef, float("inf")

    @property
    def applied(self) -> float:
        """The weight of the entropy in the next step."""
        return self.coefficient if self.entropy <= self.trl.entropy_target else 0.0

    def update(self, record: StepRecord) -> None:
        """Read the entropy of a step, and change the coefficient."""
        trl, metrics = self.trl, record.metrics
        self.entropy = float(metrics.get(HIGH_ENTROPY, metrics["entropy"]))
        change = trl.entropy_coef_delta if self.entropy <= trl.entropy_target else -trl.entropy_coef_delta
        self.coefficient = min(max(self.coefficient + change, trl.entropy_coef_min), trl.entropy_coef_max)
        record.metrics["entropy_coef"] = self.coefficient

    def state_dict(self) -> dict[str, Any]:
        return {"coefficient": self.coefficient, "entropy": self.entropy}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.coefficient, self.entropy = state["coefficient"], state["entropy"]
