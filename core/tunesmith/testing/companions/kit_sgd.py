"""Update weights in proportion to gradients, so that equal weights after some steps mean equal gradients."""

from tunesmith import Plugin, hookimpl

plugin = Plugin(answers={"optimizer": ("kit_sgd",)})


@hookimpl
def build_optimizer(run, model):
    import torch

    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.optim.SGD(trained, lr=run.core.learning_rate, momentum=0.9)
