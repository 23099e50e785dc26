"""Build the optimizer of a run from its recipe."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.optim import Optimizer

from tunesmith import parameter_groups
from tunesmith.optional import show
from tunesmith_optimizers import matrices
from tunesmith_optimizers.arguments import arguments
from tunesmith_optimizers.composite import Composite
from tunesmith_optimizers.recipes import GALORE, RECIPES, Recipe
from tunesmith_optimizers.wrapped import Averaged, Known, Projected, Quantized

if TYPE_CHECKING:
    from tunesmith import Run
    from tunesmith_optimizers import OptimizerSettings

KINDS: dict[str, type] = {"averaged": Averaged, "quantized": Quantized, "projected": Projected}


def build(run: Run, model: nn.Module, settings: OptimizerSettings) -> Optimizer:
    """Return the optimizer that `optimizer:` names. Raises ConfigError if it has nothing to train."""
    recipe = RECIPES[run.core.optimizer]
    groups = parameter_groups(run, model, settings.weight_decay)
    if not groups:
        message = "has nothing to train: no parameter requires a gradient"
        raise run.config.error("optimizer", message, help="unfreeze some parameters, or add an adapter")
    values = arguments(recipe, settings) | (recipe.sharded if run.world.sharded else {})
    if run.device.type == "cpu" and values.pop("is_paged", False):
        run.note("optimizer", "its state is not paged on a CPU, where all of it is in the same memory")
    if recipe.kind == "muon":
        return _muon(run, model, groups, recipe, values)
    if recipe.kind == "projected":
        groups = _projected(run, model, groups, settings, values)
    try:
        optimizer: Optimizer = wrapped(recipe, values)(groups, lr=run.core.learning_rate, **values)
    except ValueError as error:  # of a combination, such as Nesterov's momentum without momentum
        key = "optim_args" if settings.optim_args else "optimizer"
        help = f"change the options of {run.core.optimizer}"
        raise run.config.error(key, f"is refused by {recipe.library}: {error}", help) from error
    return optimizer


def wrapped(recipe: Recipe, values: dict[str, Any]) -> Any:
    """Return the library's class with what the training loop asks of it. `values` are its arguments."""
    module, _, name = recipe.target.partition(":")
    show(recipe.library)
    library: type = getattr(importlib.import_module(module), name)
    # Each is a class of its own, because the attributes differ.
    more = sum(number for option, number in recipe.more.items() if values.get(option))
    attributes = {"recipe": recipe, "more": more, "group_state": recipe.counters, "__module__": __name__}
    return type(name, (KINDS.get(recipe.kind, Known), library), attributes)


def _muon(
    run: Run, model: nn.Module, groups: list[dict[str, Any]], recipe: Recipe, values: dict[str, Any]
) -> Optimizer:
    """Return Muon for hidden matrices and AdamW for all other parameters, with one learning rate for both."""
    hidden = matrices.hidden(model)
    first, second = matrices.split(groups, hidden)
    if not first:
        message = "muon has no matrix to train: embeddings, heads and vectors are trained by AdamW"
        raise run.config.error("optimizer", message, help="write optimizer: adamw_torch")
    adam = {"betas": values.pop("betas"), "eps": values.pop("eps")}
    rate = run.core.learning_rate
    # With this scale, an update has the size of one of AdamW, so that both fit one learning rate.
    parts: list[Optimizer] = [torch.optim.Muon(first, lr=rate, **{"adjust_lr_fn": "match_rms_adamw", **values})]
    if second:
        parts.append(torch.optim.AdamW(second, lr=rate, **adam))
    return Composite(parts, recipe)


def _projected(
    run: Run, model: nn.Module, groups: list[dict[str, Any]], settings: OptimizerSettings, values: dict[str, Any]
) -> list[dict[str, Any]]:
    """Return the groups with the options of GaLore for the weights that it projects, and remove them from `values`."""
    options = {name: values.pop(name, default) for name, default in GALORE.items()}
    options["projection_type"] = options.pop("proj_type")
    targets = settings.optim_target_modules or "all-linear"
    help = "name modules that are trained and have matrices, such as [attn, mlp], or all-linear"
    if wrong := matrices.unmatched(model, targets):
        key = "optim_target_modules"
        path = (key, targets.index(wrong[0])) if isinstance(targets, list) else key
        raise run.config.error(path, f"matches no trained matrix: {wrong[0]}", help=help)
    first, second = matrices.split(groups, matrices.targets(model, targets))
    if not first:
        raise run.config.error("optim_target_modules", "matches no trained matrix", help=help)
    return [*({**group, **options} for group in first), *second]
