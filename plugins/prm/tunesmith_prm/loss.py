"""Right or wrong at each step (Lightman et al. 2023, arXiv 2305.20050)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from tunesmith import Term


def terms(scores: Tensor, labels: Tensor) -> dict[str, Term]:
    """From logits [M, 2] of wrong and right where steps end, and labels [M] of 0 and 1, to the cross-entropy.

    Tokens with weight are those where a step ends, so the count "tokens" is that of steps.
    """
    truth = labels.long()
    return {
        "steps": Term(F.cross_entropy(scores, truth, reduction="sum"), "tokens"),
        "accuracy": Term((scores.argmax(-1) == truth).float().sum(), "tokens", metric=True),
    }
