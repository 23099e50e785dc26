"""Track the smallest and the largest reward: a term is a sum, and neither is one."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tunesmith import Batch, Run, StepRecord


class Extremes:
    """The smallest and largest reward [2] of a run since its last step, in training (True) and evaluation (False)."""

    def __init__(self, run: Run):
        self.run = run
        self.by_mode: dict[bool, Tensor] = {}

    def watch(self, scores: Tensor, batch: Batch) -> None:
        """Record the rewards [S, 1] of a micro-batch. Dummy batches and runs without weights are ignored."""
        if self.run.abstract or batch.dummy:
            return
        extremes = torch.stack(torch.aminmax(scores.detach().float()))
        training = torch.is_grad_enabled()
        if training in self.by_mode:
            smallest, largest = torch.stack([extremes, self.by_mode[training]]).unbind(1)
            extremes = torch.stack([smallest.min(), largest.max()])
        self.by_mode[training] = extremes

    def report(self, record: StepRecord) -> None:
        """Add min_reward and max_reward of all processes to a record that is logged, and start over."""
        recorded, self.by_mode = self.by_mode, {}
        if record.log:
            record.metrics |= _named("", _over_all(self.run, recorded.get(True)))
        if record.evaluation is not None and "eval_loss" in record.evaluation:  # held-out pairs were scored
            record.evaluation |= _named("eval_", _over_all(self.run, recorded.get(False)))


def _over_all(run: Run, local: Tensor | None) -> tuple[float, float]:
    """Return the extremes over all processes; a process with only dummy batches has none."""
    by_process = [pair for pair in run.world.gather(None if local is None else local.tolist()) if pair]
    lowest = min((low for low, _ in by_process), default=math.nan)
    return lowest, max((high for _, high in by_process), default=math.nan)


def _named(prefix: str, pair: tuple[float, float]) -> dict[str, float]:
    return {f"{prefix}min_reward": pair[0], f"{prefix}max_reward": pair[1]}
