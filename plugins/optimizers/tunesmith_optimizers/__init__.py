"""Optimizers in fewer bits, with less state or with other updates than AdamW, from well-kept libraries.

8-bit, paged and 4-bit AdamW, Lion, AdEMAMix, Adafactor, Muon, schedule-free optimizers, StableAdamW, ADOPT, CAME,
GaLore, SGD, Adagrad and RMSprop.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from pydantic import Field, NonNegativeFloat, PositiveFloat

from tunesmith import ConfigError, EnvironmentProblem, Finding, Plugin, Settings, hookimpl
from tunesmith.optional import show
from tunesmith_optimizers.recipes import RECIPES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn
    from torch.optim import Optimizer

    from tunesmith import Run


class OptimizerSettings(Settings):
    """Options of optimizers. Without a value, an option is what the optimizer's paper says; the README lists them."""

    weight_decay: NonNegativeFloat = 0.0
    """Share of each weight that is subtracted per step, times the learning rate. Norms and biases are left out."""
    adam_beta1: float | None = Field(None, ge=0, lt=1)
    """Decay of the running mean of gradients."""
    adam_beta2: float | None = Field(None, ge=0, lt=1)
    """Decay of the running mean of squared gradients."""
    adam_beta3: float | None = Field(None, ge=0, lt=1)
    """Decay of the slow mean of gradients of AdEMAMix, or of the confidence of CAME."""
    adam_epsilon: PositiveFloat | None = None
    """Number that is added to the denominator of an update."""
    adam_epsilon2: PositiveFloat | None = None
    """The second such number of Adafactor (for the scale of weights) and of CAME (for the confidence)."""
    optim_args: dict[str, bool | int | float | str] | str | None = None
    """Further options of the optimizer: {momentum: 0.9}, or as a text, "momentum=0.9, nesterov=true"."""
    optim_target_modules: list[str] | str | None = None
    """Weights that GaLore projects: parts of names, or a regular expression for full names. By default, all-linear."""


plugin = Plugin(
    settings=OptimizerSettings,
    answers={"optimizer": tuple(RECIPES)},
    shared=("weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon"),
    on_resume=dict.fromkeys(OptimizerSettings.model_fields, "accept"),
)


@hookimpl
def validate(run: Run) -> None:
    from tunesmith_optimizers.arguments import problems

    name, settings, config = run.core.optimizer, run.settings(OptimizerSettings), run.config
    if name not in RECIPES:  # the plugin is only listed in plugins:
        return
    recipe = RECIPES[name]
    errors = [config.error(key, message, help=help) for key, message, help in problems(recipe, name, settings)]
    divided = (k for k in ("tensor_parallel_size", "expert_parallel_size") if getattr(run.core, k) > 1)
    key = next(divided, "fsdp_config")
    if recipe.unsharded and (run.core.fsdp_config is not None or key != "fsdp_config"):
        message = f"{name} can't be combined with {key}: {recipe.unsharded}"
        help = f"write optimizer: adamw_torch_fused, or drop {key}"
        errors.append(config.error("optimizer", message, help=help))
    if errors:
        raise ConfigError(problem for error in errors for problem in error.problems)
    show(recipe.library)
    if importlib.util.find_spec(recipe.library) is None:
        message, where = f"{name} needs the package {recipe.library}", config.place("optimizer")
        raise EnvironmentProblem(message, where=where, help=recipe.install, code="package")
    if recipe.kind == "averaged" and run.core.lr_scheduler not in ("constant", "constant_with_warmup"):
        message = f"lowers the learning rate, and {name} needs no schedule: write constant, which also has a warm-up"
        run.warn("lr_scheduler", message)


@hookimpl
def diagnose(run: Run) -> Iterator[Finding]:
    if run.core.optimizer in RECIPES:
        show(RECIPES[run.core.optimizer].library)
        recipe = RECIPES[run.core.optimizer]
        yield Finding.of_module(recipe.library, recipe.install)


@hookimpl
def build_optimizer(run: Run, model: nn.Module) -> Optimizer:
    from tunesmith_optimizers.build import build

    return build(run, model, run.settings(OptimizerSettings))
