"""Print what a run trains, its progress, and a summary.

The loss of a line is the mean of the steps since the last line; metrics.jsonl has that of each logged step alone. On a
terminal, steps are a bar; elsewhere, such as in a log file, they are plain lines. Phases such as "tokenizing" go to
stderr, so that what a command prints can be read by a program. Switch it off with `plugins: [-console]`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith import Plugin, hookimpl

if TYPE_CHECKING:
    from tunesmith import LogRecord, Run, StepRecord

plugin = Plugin(best_effort=True)


@hookimpl
def on_progress(run: Run, phase: str, done: int | None, total: int | None) -> None:
    from tunesmith_console.display import Display

    run.owned(Display).report(phase, done, total)


@hookimpl
def on_start(run: Run) -> None:
    """Print what the run trains."""
    from tunesmith_console.display import Display

    if run.world.main:
        run.owned(Display).begin()


@hookimpl
def on_step(run: Run, record: StepRecord) -> None:
    """Advance the bar, and add up the loss on the device. It is read only at a step that is logged."""
    from tunesmith_console.display import Display

    if run.world.main:
        run.owned(Display).advance(record)


@hookimpl
def write_log(run: Run, record: LogRecord) -> None:
    from tunesmith_console.display import Display

    run.owned(Display).write(record)


@hookimpl(trylast=True)
def on_end(run: Run) -> None:
    from tunesmith_console.display import Display

    if run.world.main:
        run.owned(Display).end()
