"""The loss of KTO (arXiv 2402.01306) and of APO on single answers (arXiv 2408.06266). N scored tokens, E examples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tunesmith import Batch, Term

if TYPE_CHECKING:
    from tunesmith_kto import KTOSettings


def terms(batch: Batch, logps: Tensor, settings: KTOSettings) -> dict[str, Term]:
    """From log-probabilities [N] of the answers' tokens to the loss over the answers, and what TRL's trainer logs.

    λ(1 − σ(β(r − z))) for an answer labelled true and λ(1 − σ(β(z − r))) for one labelled false: KTO's λ − v(x, y) with
    λ the weight of the label, r the answer's log-ratio and z the baseline. APO's loss of unpaired answers is that with
    z = 0.
    """
    own = batch.columns["baseline"] == 0 if "baseline" in batch.columns else slice(None)
    ratios = batch.sum_by_sequence(logps - batch.columns["ref_logps"])[own]  # [E]
    baseline = batch.columns.get("kl", torch.zeros_like(ratios))
    good = batch.columns["label"] > 0
    sign = torch.where(good, 1.0, -1.0)
    weight = torch.where(good, settings.kto_desirable_weight, settings.kto_undesirable_weight)
    losses = weight * torch.sigmoid(settings.rl_beta * sign * (baseline - ratios))  # 1 − σ(x) is σ(−x)
    found: dict[str, Term] = {settings.kto_loss_type: Term(losses.sum(), "examples")}
    if "kl" in batch.columns:
        found["kl"] = Term(baseline.sum(), "examples", metric=True)
    rewards = settings.rl_beta * ratios.detach()
    whole = batch.sum_by_sequence(logps.detach())[own]
    for name, count, which in (("chosen", "desirable", good), ("rejected", "undesirable", ~good)):
        if count in batch.counts:
            found[f"rewards/{name}"] = Term(rewards[which].sum(), count, metric=True)
            found[f"logps/{name}"] = Term(whole[which].sum(), count, metric=True)
    return found


def add_margin(metrics: dict[str, Any], prefix: str = "") -> None:
    """Add "rewards/margins", the mean reward of chosen answers less that of rejected ones, where there are both."""
    chosen, rejected = (metrics.get(f"{prefix}rewards/{name}") for name in ("chosen", "rejected"))
    if chosen is not None and rejected is not None:
        metrics[f"{prefix}rewards/margins"] = chosen - rejected
