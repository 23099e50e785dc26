"""The learning rate at each step, as a factor of its peak."""

from __future__ import annotations

import math
from typing import Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

Shape = Literal["cosine", "linear", "constant"]


def warmup_length(total: int, steps: int | None, ratio: float | None) -> int:
    """Optimizer steps of warm-up out of `total`: those given, a share rounded up, or min(3 %, 100) rounded down."""
    if steps is not None:
        return steps
    if ratio is not None:
        return math.ceil(round(ratio * total, 6))  # 0.07 * 100 is 7.000000000000001 and means 7
    return min(total * 3 // 100, 100)


def factor(step: int, shape: Shape, total: int, warmup: int, floor: float = 0.0) -> float:
    """Share of the peak learning rate with which step `step` (from 0) of `total` is taken.

    A warm-up of w steps takes step s with (s + 1) / (w + 1): no step is wasted on a rate of 0, and step w is the
    first at the peak. From there the cosine falls to `floor` and the line to 0, both reached at `total`, after the
    last step, so that one isn't wasted either.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    if shape == "cosine":
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))
    return 1 - progress if shape == "linear" else 1.0


def schedule(optimizer: Optimizer, shape: Shape, total: int, warmup: int, floor: float) -> LambdaLR:
    """The schedule of all parameter groups of an optimizer, as torch steps it."""
    # A plain function, so that the state of LambdaLR is numbers alone and fits a checkpoint in JSON.
    return LambdaLR(optimizer, lambda step: factor(step, shape, total, warmup, floor))
