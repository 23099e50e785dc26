"""Loss of the Bradley-Terry model of preferences (Ouyang et al. 2022, arXiv 2203.02155, equation 1)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from tunesmith import PluginError, Term, split_pairs


def terms(scores: Tensor, margin: Tensor | None, centering: float) -> dict[str, Term]:
    """Return the terms of the loss from the rewards [S] of answers: of each pair the chosen one, then the rejected one.

    The chosen reward should exceed the rejected one by the pair's margin [E] (Touvron et al. 2023, arXiv 2307.09288),
    or by any amount if there is none. The loss of a pair does not determine the level of rewards: `centering` times the
    squared sum of both draws it to 0 (Eisenstein et al. 2023, arXiv 2312.09244).

    Raises PluginError for scores that are not those of pairs.
    """
    if len(scores) % 2 or (margin is not None and len(margin) * 2 != len(scores)):
        expected = "an even number of answers" if margin is None else f"{2 * len(margin)} answers for its margins"
        raise PluginError(f"a reward model is trained on pairs: expected {expected}, got {len(scores)}")
    chosen, rejected = split_pairs(scores)
    gap = chosen - rejected
    excess = gap if margin is None else gap - margin
    losses = {"bradley_terry": Term(-F.logsigmoid(excess).sum(), "examples")}
    if centering:
        losses["centering"] = Term(centering * (chosen + rejected).square().sum(), "examples")
    return losses | {
        "accuracy": Term((gap > 0).float().sum(), "examples", metric=True),
        "margin": Term(gap.sum(), "examples", metric=True),
        "mean_reward": Term(scores.sum(), "sequences", metric=True),
    }
