"""The mathematics of lmeval: plain torch, testable without a run."""

from __future__ import annotations

from torch import Tensor

from tunesmith import Term


def penalty(logps: Tensor, weight: Tensor, factor: float) -> Term:
    """Return factor * sum of weight * logps**2, averaged over the trained tokens of the step.

    Args:
        logps: [N], log-probability in nats of each scored token.
        weight: [N], loss weight of each scored token.
    """
    return Term(factor * (weight * logps.square()).sum(), "tokens")
