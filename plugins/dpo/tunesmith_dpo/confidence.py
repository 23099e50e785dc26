"""Weights of pairs by how likely the policy is to write their answers (WPO, arXiv 2406.11827, equation 2)."""

from __future__ import annotations

import torch
from torch import Tensor

from tunesmith import Batch, Policy, split_pairs

CHUNK = 2**24
"""Logits that are computed at a time: 64 MiB in float32."""


def confidence(policy: Policy, hidden: Tensor, logps: Tensor, batch: Batch) -> Tensor:
    """Return the weight of each pair [P], without gradient: the product of exp(mean(log p − log Σ p²)) of both answers.

    p is the policy's distribution at a token. Σ p² is the probability that the policy is expected to give to a token
    that it samples itself, so answers that it would write have a weight of about 1. hidden [N, H] and logps [N] are
    those of the scored tokens.
    """
    with torch.no_grad():
        expected = policy.inside(lambda: log_sum_of_squares(policy, hidden.detach()))
        return torch.stack(split_pairs(batch.mean_by_sequence(logps.detach() - expected).exp())).prod(0)


def log_sum_of_squares(policy: Policy, hidden: Tensor) -> Tensor:
    """Return log Σ p² over the vocabulary [N] at each hidden state [N, H]."""
    if not len(hidden):
        return hidden.new_zeros(0)
    size = max(1, CHUNK // policy.language_model.logits(hidden[:1]).shape[-1])
    logits = (policy.language_model.logits(part).float() for part in hidden.split(size))
    return torch.cat([(2 * part.log_softmax(-1)).logsumexp(-1) for part in logits])
