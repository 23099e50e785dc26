"""The loss of ORPO (arXiv 2403.07691) over a micro-batch. N scored tokens, P pairs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tunesmith import Batch, Term, pair_metrics, split_pairs


def orpo(batch: Batch, logps: Tensor, alpha: float) -> dict[str, Term]:
    """Return the terms of equation 6 from log-probabilities [N] of the answers' tokens, in nats.

    "nll_loss" is the negative log-likelihood of the chosen answers without their prompts, divided by the number of
    their tokens in the step. "odds_ratio_loss" is alpha times equation 7, averaged over the pairs.
    """
    chosen, rejected = split_pairs(batch.mean_by_sequence(logps))
    odds = log_odds(chosen) - log_odds(rejected)
    ratio = F.logsigmoid(odds)
    likelihood = batch.sum_by_sequence(logps).view(-1, 2)[:, 0]
    return {
        "nll_loss": Term(-likelihood.sum(), "chosen_tokens"),
        "odds_ratio_loss": Term(-alpha * ratio.sum(), "examples"),
        "log_odds_ratio": Term(ratio.detach().sum(), "examples", metric=True),
        "log_odds_chosen": Term(odds.detach().sum(), "examples", metric=True),
        **pair_metrics(alpha * chosen, alpha * rejected, chosen, rejected),
    }


def log_odds(logps: Tensor) -> Tensor:
    """Return log(p / (1 - p)) from log p (equation 4). p is the geometric mean of an answer's token probabilities."""
    # 1 - p must stay above 0: 1e-7 is the distance from 1 to the next smaller float32, rounded up.
    return logps - torch.log(-torch.expm1(logps.clamp(max=-1e-7)))
