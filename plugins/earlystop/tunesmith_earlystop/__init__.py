"""Stop training when a metric of the evaluations no longer improves."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from pydantic import NonNegativeFloat, PositiveInt

from tunesmith import Plugin, Settings, hookimpl

if TYPE_CHECKING:
    from tunesmith import Run, StepRecord
    from tunesmith_earlystop.patience import Patience


class EarlyStopSettings(Settings):
    """When to stop. metric_for_best_model and greater_is_better set the metric and its direction."""

    early_stopping_patience: PositiveInt | None = None
    """Number of consecutive evaluations without improvement after which training stops."""
    early_stopping_threshold: NonNegativeFloat = 0.0
    """Amount by which the metric must exceed its best value to count as an improvement."""


plugin = Plugin(
    settings=EarlyStopSettings,
    switches=("early_stopping_patience",),
    on_resume=dict.fromkeys(EarlyStopSettings.model_fields, "free"),
)


@hookimpl
def validate(run: Run) -> None:
    if run.core.val_set_size or run.core.test_datasets:
        return
    if not run.hooks.has("evaluate"):
        help = "write val_set_size: 0.05, or test_datasets: ..."
        raise run.config.error("early_stopping_patience", "needs held-out examples to evaluate on", help=help)
    if run.core.metric_for_best_model == "eval_loss":
        message = "needs held-out examples: eval_loss is not measured without them"
        raise run.config.error("early_stopping_patience", message, help="write metric_for_best_model: eval_...")


@hookimpl
def configure(run: Run) -> None:
    from tunesmith_earlystop.patience import Patience

    settings = run.settings(EarlyStopSettings)
    patience = settings.early_stopping_patience or 1  # never None here: the key activates the plugin
    run.register_state(
        "earlystop", Patience(patience, settings.early_stopping_threshold, greater=run.core.greater_is_better)
    )


@hookimpl(trylast=True)  # so that metrics added by other plugins can be watched
def on_step(run: Run, record: StepRecord) -> None:
    if record.evaluation is None:
        return
    name = run.core.metric_for_best_model
    if name not in record.evaluation:
        metrics = ", ".join(record.evaluation) or "no metrics"
        raise run.config.error(
            "metric_for_best_model", f"is {name!r}, but evaluations do not report it", f"write one of: {metrics}"
        )
    patience = cast("Patience", run.states["earlystop"])
    if patience.exhausted(record.evaluation[name]) and record.step < run.total_steps:
        run.stop(f"{name} did not improve on {patience.best_text} in {patience.bad} evaluations")
