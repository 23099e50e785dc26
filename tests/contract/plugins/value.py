"""Train a value head next to any method: it predicts the share of a sequence's tokens that are still to come."""

import torch

from tunesmith import Head, Needs, Plugin, Settings, Term, hookimpl


class ValueSettings(Settings):
    value_weight: float = 0.5


plugin = Plugin(settings=ValueSettings, heads={"value": Head(at="tokens", bias=True)}, needs=Needs(heads=("value",)))


@hookimpl(wrapper=True)
def compute_loss(run, out, batch):
    terms = yield
    lengths = torch.bincount(batch.sequence, minlength=batch.sequences)
    first = lengths.cumsum(0) - lengths
    place = torch.arange(len(batch.sequence), device=lengths.device) - first[batch.sequence]
    to_come = 1 - place / lengths[batch.sequence]
    error = (out.heads["value"][:, 0].float() - to_come).square().sum()
    return terms | {"value": Term(run.settings(ValueSettings).value_weight * error, "tokens")}


@hookimpl
def save_model(policy, path):
    policy.save_heads(path, "value")
