"""AdamW, the default optimizer.

Weight decay is not applied to parameters with one dimension (norms, biases).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, NonNegativeFloat, PositiveFloat

from tunesmith import Plugin, Settings, hookimpl

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from tunesmith import Run


class AdamWSettings(Settings):
    """Options of AdamW (arXiv 1711.05101). The learning rate is a key of the core."""

    weight_decay: NonNegativeFloat = 0.0
    """Share of each weight that is subtracted per step, times the learning rate. Norms and biases are left out."""
    adam_beta1: float = Field(0.9, ge=0, lt=1)
    """Decay of the running mean of gradients."""
    adam_beta2: float = Field(0.999, ge=0, lt=1)
    """Decay of the running mean of squared gradients."""
    adam_epsilon: PositiveFloat = 1e-8
    """Number that is added to the denominator of an update."""


plugin = Plugin(
    settings=AdamWSettings,
    answers={"optimizer": ("adamw_torch", "adamw_torch_fused", "adamw")},
    on_resume=dict.fromkeys(AdamWSettings.model_fields, "accept"),
)


@hookimpl
def build_optimizer(run: Run, model: nn.Module) -> Optimizer:
    from torch.optim import AdamW

    from tunesmith import parameter_groups

    settings = run.settings(AdamWSettings)
    groups = parameter_groups(run, model, settings.weight_decay)
    if not groups:
        message = "has nothing to train: no parameter requires a gradient"
        raise run.config.error("optimizer", message, help="unfreeze some parameters, or add an adapter")
    fused = True if run.core.optimizer == "adamw_torch_fused" else None  # None: torch's choice, foreach on GPUs
    betas = (settings.adam_beta1, settings.adam_beta2)
    return AdamW(groups, lr=run.core.learning_rate, betas=betas, eps=settings.adam_epsilon, fused=fused)
