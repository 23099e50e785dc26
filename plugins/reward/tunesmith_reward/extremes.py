"""The smallest and the largest reward: terms are sums, and neither is one, so they are watched beside the loss."""

from __future__ import annotations

import math
import weakref

import torch
from torch import Tensor

from tunesmith import Batch, Run, StepRecord

_seen: weakref.WeakKeyDictionary[Run, dict[bool, Tensor]] = weakref.WeakKeyDictionary()
# Of a run since its last step: smallest and largest [2] in training (True) and in evaluation (False).


def watch(run: Run, scores: Tensor, batch: Batch) -> None:
    """Look at the rewards [S, 1] of a micro-batch, unless they are only counted or keep company."""
    if run.abstract or batch.dummy:
        return
    found = torch.stack(torch.aminmax(scores.detach().float()))
    seen = _seen.setdefault(run, {})
    training = torch.is_grad_enabled()
    if training in seen:
        smallest, largest = torch.stack([found, seen[training]]).unbind(1)
        found = torch.stack([smallest.min(), largest.max()])
    seen[training] = found


def report(run: Run, record: StepRecord) -> None:
    """Write min_reward and max_reward of all processes into a record that is logged, and begin anew."""
    seen = _seen.pop(run, {})
    if record.log:
        record.metrics |= _named("", _over_all(run, seen.get(True)))
    if record.evaluation is not None:
        record.evaluation |= _named("eval_", _over_all(run, seen.get(False)))


def _over_all(run: Run, mine: Tensor | None) -> tuple[float, float]:
    """A process with dummies alone has seen none."""
    everywhere = [pair for pair in run.world.gather(None if mine is None else mine.tolist()) if pair]
    lowest = min((low for low, _ in everywhere), default=math.nan)
    return lowest, max((high for _, high in everywhere), default=math.nan)


def _named(prefix: str, pair: tuple[float, float]) -> dict[str, float]:
    return {f"{prefix}min_reward": pair[0], f"{prefix}max_reward": pair[1]}
