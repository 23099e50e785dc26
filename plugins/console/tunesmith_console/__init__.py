"""Print progress and a summary."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith import Plugin, hookimpl

if TYPE_CHECKING:
    from tunesmith import Run, StepRecord
    from tunesmith_console.display import Display

plugin = Plugin(best_effort=True)
# Displays by id of the run, because hooks are functions and a progress bar stays open between their calls.
_displays: dict[int, Display] = {}


@hookimpl
def on_start(run: Run) -> None:
    from tunesmith_console.display import Display

    if run.world.main:
        _displays[id(run)] = Display(run.total_steps, run.step)


@hookimpl(trylast=True)
def on_step(run: Run, record: StepRecord) -> None:
    if run.world.main:
        _displays[id(run)].step(record)


@hookimpl(trylast=True)
def on_end(run: Run) -> None:
    from tunesmith_console.display import Display, summary

    if run.world.main:
        display = _displays.pop(id(run), None) or Display(run.total_steps, run.step)  # interrupted before on_start
        display.close()
        display.print(summary(run))
