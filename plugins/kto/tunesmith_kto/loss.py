"""Losses of KTO (arXiv 2402.01306) and APO (arXiv 2408.06266) on single answers. N scored tokens, E examples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tunesmith import Batch, Term

if TYPE_CHECKING:
    from tunesmith_kto import KTOSettings


def terms(batch: Batch, logps: Tensor, settings: KTOSettings) -> dict[str, Term]:
    """Return the loss of the answers and the metrics that TRL's trainer logs, from log-probabilities [N] in nats.

    The loss is λ(1 − σ(β(r − z))) for an answer labeled true and λ(1 − σ(β(z − r))) for one labeled false: KTO's
    λ − v(x, y), where λ is the weight of the label, r the answer's log-ratio and z the baseline. APO's loss of unpaired
    answers is the same with z = 0.
    """
    ratios = batch.sum_by_sequence(logps - batch.columns["ref_logps"])  # [E]
    baseline = batch.columns.get("kl", torch.zeros_like(ratios))
    good = batch.columns["label"] > 0
    sign = torch.where(good, 1.0, -1.0)
    weight = torch.where(good, settings.kto_desirable_weight, settings.kto_undesirable_weight)
    losses = weight * torch.sigmoid(settings.rl_beta * sign * (baseline - ratios))  # 1 − σ(x) is σ(−x)
    result: dict[str, Term] = {settings.kto_loss_type: Term(losses.sum(), "examples")}
    if "kl" in batch.columns:
        result["kl"] = Term(baseline.sum(), "examples", metric=True)
    rewards = settings.rl_beta * ratios.detach()
    own_logps = batch.sum_by_sequence(logps.detach())
    for name, count, which in (("chosen", "desirable", good), ("rejected", "undesirable", ~good)):
        if count in batch.counts:
            result[f"rewards/{name}"] = Term(rewards[which].sum(), count, metric=True)
            result[f"logps/{name}"] = Term(own_logps[which].sum(), count, metric=True)
    return result


def add_margin(metrics: dict[str, Any], prefix: str = "") -> None:
    """Add "rewards/margins", the mean reward of chosen minus that of rejected answers, if the step has both."""
    chosen, rejected = (metrics.get(f"{prefix}rewards/{name}") for name in ("chosen", "rejected"))
    if chosen is not None and rejected is not None:
        metrics[f"{prefix}rewards/margins"] = chosen - rejected
