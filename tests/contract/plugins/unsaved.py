"""Train a value head on the last layer that predicts the negative loss of each token, and save it nowhere."""

from torch import nn

from tunesmith import Needs, Plugin, Term, hookimpl

plugin = Plugin(needs=Needs(logps=True, hidden=(-1,)), after=("lora",))  # which freezes everything else


@hookimpl
def patch_model(model):
    model.value = nn.Linear(model.config.hidden_size, 1)
    return model


@hookimpl(wrapper=True)
def compute_loss(policy, out):
    terms = yield
    values = policy.model.value(out.hidden[-1])[:, 0]
    return terms | {"value": Term((values - out.logps.detach()).square().sum(), "tokens")}
