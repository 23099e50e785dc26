"""Print progress and a summary."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith import Plugin, hookimpl

if TYPE_CHECKING:
    from tunesmith import LogRecord, Run, StepRecord

plugin = Plugin(best_effort=True)


@hookimpl
def on_start(run: Run) -> None:
    from tunesmith_console.display import Display

    if run.world.main:
        run.owned(Display)


@hookimpl
def on_step(run: Run, record: StepRecord) -> None:
    """Advance the bar, also at steps that are not logged. Metrics are not read."""
    from tunesmith_console.display import Display

    if run.world.main:
        run.owned(Display).advance(record.step)


@hookimpl
def write_log(run: Run, record: LogRecord) -> None:
    from tunesmith_console.display import Display

    run.owned(Display).write(record)


@hookimpl(trylast=True)
def on_end(run: Run) -> None:
    from tunesmith_console.display import Display, summary

    if run.world.main:
        display = run.owned(Display)
        display.close()
        display.print(summary(run))
