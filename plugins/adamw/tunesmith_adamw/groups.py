"""Group the parameters of a model by weight decay, and build AdamW over the groups."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from tunesmith_adamw import AdamWSettings


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return the parameters that require gradients in up to two groups: matrices with weight decay, others without.

    Each group keeps the order of the model and contains shared parameters once, so the groups are the same in every
    process and after a restart. A group without parameters is left out.
    """
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for parameter in model.parameters():
        if parameter.requires_grad:
            # DeepSpeed's ZeRO-3 empties parameters between uses and keeps their true shape here.
            shape = getattr(parameter, "ds_shape", parameter.shape)
            (decayed if len(shape) > 1 else plain).append(parameter)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def adamw(groups: list[dict[str, Any]], lr: float, settings: AdamWSettings, fused: bool) -> torch.optim.AdamW:
    """Build torch's AdamW over parameter groups, with the fused kernel or with torch's choice (foreach on GPUs)."""
    betas = (settings.adam_beta1, settings.adam_beta2)
    return torch.optim.AdamW(groups, lr=lr, betas=betas, eps=settings.adam_epsilon, fused=True if fused else None)
