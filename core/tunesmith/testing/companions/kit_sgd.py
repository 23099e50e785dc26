"""Update weights in proportion to gradients, so that equal weights after some steps mean equal gradients."""

from tunesmith import Plugin, hookimpl

plugin = Plugin(answers={"optimizer": ("kit_sgd",)})


@hookimpl
def build_optimizer(run, model):
    import torch

    from tunesmith import parameter_groups

    return torch.optim.SGD(parameter_groups(run, model), lr=run.core.learning_rate, momentum=0.9)
