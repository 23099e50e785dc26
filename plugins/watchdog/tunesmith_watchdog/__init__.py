"""Stop training when the loss stays above a threshold."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from pydantic import PositiveFloat, PositiveInt

from tunesmith import Plugin, Settings, hookimpl

if TYPE_CHECKING:
    from tunesmith import Run, StepRecord
    from tunesmith_watchdog.watch import Watch


class WatchdogSettings(Settings):
    """When to stop."""

    loss_watchdog_threshold: PositiveFloat | None = None
    """Training stops if the loss of logged steps stays above this value."""
    loss_watchdog_patience: PositiveInt = 3
    """Number of consecutive logged steps with a loss above loss_watchdog_threshold after which training stops."""


plugin = Plugin(
    settings=WatchdogSettings,
    switches=("loss_watchdog_threshold",),
    on_resume=dict.fromkeys(WatchdogSettings.model_fields, "free"),
)


@hookimpl
def configure(run: Run) -> None:
    from tunesmith_watchdog.watch import Watch

    settings = run.settings(WatchdogSettings)
    threshold = settings.loss_watchdog_threshold
    if threshold is not None:
        run.register_state("watchdog", Watch(threshold, settings.loss_watchdog_patience))


@hookimpl
def on_step(run: Run, record: StepRecord) -> None:
    if not record.log or "watchdog" not in run.states:
        return
    watch = cast("Watch", run.states["watchdog"])
    loss = float(record.metrics["loss"])
    if watch.exhausted(loss) and record.step < run.total_steps:
        steps = "a logged step" if watch.high == 1 else f"{watch.high} logged steps in a row"
        run.stop(f"the loss ({loss:.4g}) was above {watch.threshold:g} in {steps}")
