"""Loss of the labels of steps, right or wrong (Lightman et al. 2023, arXiv 2305.20050)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from tunesmith import Term


def terms(scores: Tensor, labels: Tensor) -> dict[str, Term]:
    """Return the cross-entropy of logits [M, 2] of wrong and right at the ends of M steps, and labels [M] of 0 and 1.

    Only the last token of a step has a weight, so the count "tokens" is the number of steps.
    """
    truth = labels.long()
    return {
        "steps": Term(F.cross_entropy(scores, truth, reduction="sum"), "tokens"),
        "accuracy": Term((scores.argmax(-1) == truth).float().sum(), "tokens", metric=True),
    }
