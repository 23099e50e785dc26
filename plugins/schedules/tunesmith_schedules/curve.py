"""Compute the learning rate of each step as a factor of its peak."""

from __future__ import annotations

import math
from typing import Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

Shape = Literal["cosine", "linear", "constant"]


def warmup_length(total: int, steps: int | None, ratio: float | None) -> int:
    """Return the number of warm-up steps out of `total` optimizer steps.

    It is `steps`, or else the share `ratio` rounded up, or else 3% rounded down, but at most 100.
    """
    if steps is not None:
        return steps
    if ratio is not None:
        return math.ceil(round(ratio * total, 6))  # 0.07 * 100 is 7.000000000000001, which must give 7
    return min(total * 3 // 100, 100)


def factor(step: int, shape: Shape, total: int, warmup: int, floor: float = 0.0) -> float:
    """Return the learning rate of step `step` (counted from 0) of `total`, as a share of the peak.

    In a warm-up of w steps, step s has the factor (s + 1) / (w + 1), so no step has a rate of 0, and step w is the
    first at the peak. Then the cosine falls to `floor`, and the linear schedule to 0. Both reach that value at `total`,
    after the last step, so the last step has a rate above it too.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    if shape == "cosine":
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))
    return 1 - progress if shape == "linear" else 1.0


def schedule(optimizer: Optimizer, shape: Shape, total: int, warmup: int, floor: float) -> LambdaLR:
    """Build torch's scheduler for all parameter groups of an optimizer."""
    # LambdaLR does not save a plain function, so its state contains only numbers and fits a JSON checkpoint.
    return LambdaLR(optimizer, lambda step: factor(step, shape, total, warmup, floor))
