"""The objects that hooks exchange with the training loop: loss terms, and the record of a step."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Term:
    """A part of the loss: a sum over the micro-batch, and what it is divided by.

    count is a number, or the name of a count of the batch: "tokens", "sequences", "examples", or one that the method
    added. Named counts are summed over the full optimizer step and all processes before the division. With `metric`,
    the term is logged but not trained on.
    """

    sum: Tensor
    count: str | float
    metric: bool = False


@dataclass
class StepRecord:
    """The record of an optimizer step, for loggers.

    metrics are scalar tensors (loss, grad_norm, the method's terms) or numbers (learning_rate, tokens, ...), already
    averaged over micro-batches and processes. evaluation contains the results of an evaluation after this step, if
    there was one. log is True if the step is to be logged (`logging_steps`).
    """

    step: int
    epoch: float
    metrics: dict[str, Tensor | float] = field(default_factory=dict)
    evaluation: dict[str, float] | None = None
    log: bool = True

    def scalars(self) -> dict[str, float]:
        """Return everything as plain numbers: step, epoch, metrics, and the results of an evaluation."""
        numbers = {k: v.item() if isinstance(v, torch.Tensor) else v for k, v in self.metrics.items()}
        return {"step": self.step, "epoch": round(self.epoch, 6), **numbers, **(self.evaluation or {})}
