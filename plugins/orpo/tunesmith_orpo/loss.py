"""The loss of ORPO (arXiv 2403.07691) over a micro-batch. N scored tokens, P pairs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tunesmith import Batch, Term, pair_metrics


def orpo(batch: Batch, logps: Tensor, alpha: float) -> dict[str, Term]:
    """From log-probabilities [N] of the answers' tokens to the terms of equation 6.

    "nll_loss" is the negative log-likelihood of the chosen answers, over all their tokens in the step; the prompt is
    no part of it. "odds_ratio_loss" is alpha times equation 7, over the pairs.
    """
    chosen, rejected = batch.mean_by_sequence(logps).view(-1, 2).unbind(1)
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
    """log(p / (1 - p)) from log p (equation 4); p is the geometric mean of an answer's token probabilities."""
    # 1 - p has to stay above 0: 1e-7 is the distance from 1 to the next float32 below it, rounded up.
    return logps - torch.log(-torch.expm1(logps.clamp(max=-1e-7)))
