"""Weights of pairs by how likely the policy itself is to write them (WPO, arXiv 2406.11827, equation 2)."""

from __future__ import annotations

import torch
from torch import Tensor

from tunesmith import Batch, Policy
from tunesmith_dpo.margins import pairs_of

CHUNK = 2**24
"""Logits at a time: 64 MiB in float32."""


def confidence(policy: Policy, hidden: Tensor, logps: Tensor, batch: Batch) -> Tensor:
    """Weight of each pair [P], without gradient: the product over both answers of e to the mean of log p − log Σ p².

    p is the policy's distribution at a token; Σ p² is the probability that it would be expected to give to a token of
    its own, so text of its own kind has a weight about 1. hidden [N, H] and logps [N] are of the scored tokens.
    """
    with torch.no_grad():
        expected = policy.inside(lambda: log_sum_of_squares(policy, hidden.detach()))
        return torch.stack(pairs_of(batch.mean_by_sequence(logps.detach() - expected).exp())).prod(0)


def log_sum_of_squares(policy: Policy, hidden: Tensor) -> Tensor:
    """log Σ p² over the vocabulary at each hidden state: [N, H] to [N]."""
    if not len(hidden):
        return hidden.new_zeros(0)
    size = max(1, CHUNK // policy.language_model.logits(hidden[:1]).shape[-1])
    logits = (policy.language_model.logits(part).float() for part in hidden.split(size))
    return torch.cat([(2 * part.log_softmax(-1)).logsumexp(-1) for part in logits])
