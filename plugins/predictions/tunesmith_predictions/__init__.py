"""Metrics of predictions: their entropy, and how often the most likely token is the correct one."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

from tunesmith import Needs, Plugin, Settings, hookimpl

if TYPE_CHECKING:
    from tunesmith import Batch, Output, Run, Term


class PredictionSettings(Settings):
    """Metrics at each trained token, in training and in evaluation, under the names that TRL logs."""

    log_entropy: bool = False
    """Log `entropy`: the mean entropy of predictions in nats. It falls toward 0 as a model becomes certain."""
    log_token_accuracy: bool = False
    """Log `mean_token_accuracy`: the share of tokens that the model predicts as the most likely one."""


def _needs(run: Run) -> Needs:
    settings = run.settings(PredictionSettings)
    return Needs(entropy=settings.log_entropy, topk=int(settings.log_token_accuracy))


plugin = Plugin(
    settings=PredictionSettings,
    switches=("log_entropy", "log_token_accuracy"),
    needs=_needs,
    metrics=("entropy", "mean_token_accuracy"),
    on_resume=dict.fromkeys(PredictionSettings.model_fields, "free"),
)


@hookimpl
def validate(run: Run) -> None:
    if run.method.exports is not None:
        key = "log_entropy" if run.settings(PredictionSettings).log_entropy else "log_token_accuracy"
        raise run.config.error(key, "has no effect: a model with a score head does not predict tokens", "drop the key")


@hookimpl(wrapper=True)
def compute_loss(run: Run, out: Output, batch: Batch) -> Generator[None, dict[str, Term], dict[str, Term]]:
    """Add the metrics to the terms of the method. They are not trained on."""
    from tunesmith import Term

    terms = yield
    settings, metrics = run.settings(PredictionSettings), {}
    if settings.log_entropy:
        metrics["entropy"] = Term(out.entropy.detach().sum(), "tokens", metric=True)
    if settings.log_token_accuracy:
        metrics["mean_token_accuracy"] = Term((out.topk_ids[:, 0] == batch.target_ids).sum(), "tokens", metric=True)
    return terms | metrics
