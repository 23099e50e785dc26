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


DEFAULTS = (0.9, 0.999, 1e-8)
"""The betas and the epsilon of AdamW. Other optimizers share the keys and have defaults of their own."""


class AdamWSettings(Settings):
    """Options of AdamW (arXiv 1711.05101). The learning rate is a key of the core."""

    weight_decay: NonNegativeFloat = 0.0
    """Share of each weight that is subtracted per step, times the learning rate. Norms and biases are left out."""
    adam_beta1: float | None = Field(None, ge=0, lt=1)
    """Decay of the running mean of gradients; 0.9 by default."""
    adam_beta2: float | None = Field(None, ge=0, lt=1)
    """Decay of the running mean of squared gradients; 0.999 by default."""
    adam_epsilon: PositiveFloat | None = None
    """Number that is added to the denominator of an update; 1e-8 by default."""


plugin = Plugin(
    settings=AdamWSettings,
    answers={"optimizer": ("adamw_torch", "adamw_torch_fused", "adamw", "adamw_hf")},
    shared=tuple(AdamWSettings.model_fields),
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
    own = (settings.adam_beta1, settings.adam_beta2, settings.adam_epsilon)
    beta1, beta2, eps = (usual if key is None else key for key, usual in zip(own, DEFAULTS, strict=True))
    return AdamW(groups, lr=run.core.learning_rate, betas=(beta1, beta2), eps=eps, fused=fused)
