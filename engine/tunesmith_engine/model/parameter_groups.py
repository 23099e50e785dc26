"""Group the trained parameters of a model by weight decay and by learning rate, for optimizers."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim import Optimizer

from tunesmith.errors import PluginError
from tunesmith.run import Run
from tunesmith_engine.model.parallelism import full_shape


def parameter_groups(
    run: Run, model: nn.Module, weight_decay: float = 0.0, learning_rate: float | None = None
) -> list[dict[str, Any]]:
    """Return the parameters of a model that require gradients as groups for an optimizer.

    Matrices have weight decay, parameters with one dimension (norms, biases) have none. Each group has the learning
    rate times the factor that plugins answer in the hook learning_rate_factors. A group keeps the order of the model
    and contains shared parameters once, so groups are the same in every process and after a restart. The groups with
    factor 1 come first, since the learning rate of the first group is the one that is logged.

    Args:
        run: the run.
        model: the model that build_optimizer gets.
        weight_decay: the weight decay of the matrices.
        learning_rate: the learning rate at factor 1; by default, the key `learning_rate`.

    Raises PluginError if two plugins set the factor of one parameter, or one names a parameter that is not trained.
    """
    rate = run.core.learning_rate if learning_rate is None else learning_rate
    factors = factors_of(run, model)
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {(1.0, True): [], (1.0, False): []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            matrix = len(full_shape(parameter)) > 1
            groups.setdefault((factors.get(name, 1.0), matrix), []).append(parameter)
    return [
        {"params": parameters, "weight_decay": weight_decay if matrix else 0.0, "lr": rate * factor}
        for (factor, matrix), parameters in groups.items()
        if parameters
    ]


def factors_of(run: Run, model: nn.Module) -> dict[str, float]:
    """Return the learning-rate factors of all plugins by the names of trained parameters. Raises PluginError."""
    factors: dict[str, float] = {}
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    help = "return names of model.named_parameters() that require gradients"
    for answer in run.hooks.learning_rate_factors(run, model):
        if wrong := sorted(answer.keys() - trained):
            raise PluginError(f"learning_rate_factors names {wrong[0]}, which is not a trained parameter", help=help)
        if twice := sorted(answer.keys() & factors.keys()):
            message = f"two plugins set the learning rate of {twice[0]}"
            raise PluginError(message, help="drop one of the keys that set it", code="plugin-conflict")
        factors |= answer
    return factors


def check_factors(run: Run, model: nn.Module, optimizer: Optimizer) -> None:
    """Raise PluginError if an optimizer trains a parameter at the learning rate of the run in spite of its factor."""
    factors = factors_of(run, model)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        if factors.get(name, 1.0) != 1.0 and rates.get(id(parameter)) == run.core.learning_rate:
            message = f"the optimizer ignores the learning-rate factor {factors[name]:g} of {name}"
            raise PluginError(message, help="build its groups with tunesmith.parameter_groups(run, model)")
