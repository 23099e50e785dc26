"""Write metrics as JSON lines to metrics.jsonl in the output folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith import Plugin, hookimpl

if TYPE_CHECKING:
    from tunesmith import Run, StepRecord

plugin = Plugin(best_effort=True)
NAME = "metrics.jsonl"


@hookimpl
def on_start(run: Run) -> None:
    """Start the file. If the run resumes from a checkpoint, keep only the lines up to that step."""
    from tunesmith_jsonl.lines import rewind

    if run.world.main:
        damaged = rewind(run.output_dir / NAME, run.step)
        if damaged:
            run.note(NAME, f"incomplete lines of an interrupted run dropped: {damaged}")


@hookimpl(trylast=True)
def on_step(run: Run, record: StepRecord) -> None:
    from tunesmith_jsonl.lines import append

    if run.world.main and (record.log or record.evaluation):
        append(run.output_dir / NAME, record.scalars())
