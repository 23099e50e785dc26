"""Record a trace of some steps with the profiler of torch, and on a GPU the allocations of memory, as files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import NonNegativeInt, PositiveInt

from tunesmith import Plugin, Settings, hookimpl

if TYPE_CHECKING:
    from tunesmith import Run, StepRecord


class ProfilerSettings(Settings):
    """Keys for the steps to record."""

    profiler_steps: PositiveInt | None = None
    """Number of steps to record. A trace has thousands of events per step: a few steps are enough."""
    profiler_steps_start: NonNegativeInt = 0
    """Number of steps before the first recorded one. The first steps of a run are slower than later ones."""


plugin = Plugin(
    settings=ProfilerSettings,
    switches=("profiler_steps",),
    best_effort=True,
)


@hookimpl
def validate(run: Run) -> None:
    start = run.settings(ProfilerSettings).profiler_steps_start
    if run.core.max_steps is not None and start >= run.core.max_steps:
        message = f"is {start}, but the run has {run.core.max_steps} steps (max_steps): none would be recorded"
        raise run.config.error("profiler_steps_start", message, help="write a smaller number")


@hookimpl
def on_start(run: Run) -> None:
    from tunesmith_profiler.profile import Profile

    run.owned(Profile).begin()


@hookimpl(trylast=True)
def on_step(run: Run, record: StepRecord) -> None:
    from tunesmith_profiler.profile import Profile

    run.owned(Profile).step(record.step)
