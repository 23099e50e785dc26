"""The Bradley-Terry model of a preference (Ouyang et al. 2022, arXiv 2203.02155, equation 1)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from tunesmith import PluginError, Term


def terms(scores: Tensor, margin: Tensor | None, centering: float) -> dict[str, Term]:
    """From rewards [S], of each pair first the chosen and then the rejected answer's, to the terms of the loss.

    The chosen reward should exceed the rejected one by the pair's margin [E] (Touvron et al. 2023, arXiv 2307.09288),
    or by anything where there is none. Pairs say nothing about the level of rewards: `centering` times the squared
    sum of both draws it to 0 (Eisenstein et al. 2023, arXiv 2312.09244).
    """
    if len(scores) % 2 or (margin is not None and len(margin) * 2 != len(scores)):
        raise PluginError(f"a reward model is trained on pairs, and {len(scores)} answers are none")
    chosen, rejected = scores.view(-1, 2).unbind(1)
    gap = chosen - rejected
    wanted = gap if margin is None else gap - margin
    found = {"bradley_terry": Term(-F.logsigmoid(wanted).sum(), "examples")}
    if centering:
        found["centering"] = Term(centering * (chosen + rejected).square().sum(), "examples")
    return found | {
        "accuracy": Term((gap > 0).float().sum(), "examples", metric=True),
        "margin": Term(gap.sum(), "examples", metric=True),
        "mean_reward": Term(scores.sum(), "sequences", metric=True),
    }
