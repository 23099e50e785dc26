"""Write metrics as JSON lines to metrics.jsonl in the output folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith import Plugin, hookimpl

if TYPE_CHECKING:
    from tunesmith import LogRecord, Run

# Synchronous: a step has its line before its checkpoint exists, so that a killed and resumed run has each step once.
plugin = Plugin(best_effort=True, synchronous=True)


@hookimpl
def on_start(run: Run) -> None:
    """Start the files. If the run resumes from a checkpoint, keep only the lines up to that step."""
    from tunesmith_jsonl.lines import Files

    if run.world.main:
        run.owned(Files).rewind()


@hookimpl
def write_log(run: Run, record: LogRecord) -> None:
    from tunesmith_jsonl.lines import Files

    run.owned(Files).write(record)
