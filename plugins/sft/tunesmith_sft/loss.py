"""Cross-entropy over the trained tokens of a step."""

from __future__ import annotations

from torch import Tensor

from tunesmith import Term


def cross_entropy(logps: Tensor, weight: Tensor) -> dict[str, Term]:
    """Return the term "nll" from log-probabilities [N] of targets in nats and their loss weights [N].

    It is the sum of the weighted negative log-likelihoods, divided by the number of trained tokens of the optimizer
    step.
    """
    return {"nll": Term(-(logps * weight).sum(), "tokens")}
