"""What hooks exchange with the loop: loss terms, and the record of a step."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Term:
    """A part of the loss: a sum over the micro-batch, and what it is divided by.

    count is the name of a count of the batch ("tokens", "sequences", "examples", or one of the method's own), summed
    over the whole optimizer step and all processes; or a fixed number. With `metric`, it is logged and not trained on.
    """

    sum: Tensor
    count: str | float
    metric: bool = False


@dataclass
class StepRecord:
    """One optimizer step as loggers and watchers see it.

    metrics are scalar tensors (loss, grad_norm, the method's terms) or numbers (learning_rate, tokens, ...), already
    averaged over micro-batches and processes. evaluation holds what an evaluation after this step measured. log says
    that this step is one to write down (`logging_steps`).
    """

    step: int
    epoch: float
    metrics: dict[str, Tensor | float] = field(default_factory=dict)
    evaluation: dict[str, float] | None = None
    log: bool = True

    def scalars(self) -> dict[str, float]:
        """Everything as plain numbers: step, epoch, the metrics, and the evaluation where there was one."""
        numbers = {k: v.item() if isinstance(v, torch.Tensor) else v for k, v in self.metrics.items()}
        return {"step": self.step, "epoch": round(self.epoch, 6), **numbers, **(self.evaluation or {})}
