"""Record what a run was made from in origin.json; list runs, compare two, and repeat one bit for bit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith import Plugin, hookimpl

if TYPE_CHECKING:
    from tunesmith import Run

plugin = Plugin(
    best_effort=True,
    commands={
        "runs": ("tunesmith_runs.listing:runs", "List the runs in a folder, with their state and results."),
        "diff": ("tunesmith_runs.differences:diff", "Show what differs between two runs, and in their results."),
        "repeat": (
            "tunesmith_runs.repeating:repeat",
            "Train a run again, bit for bit, or say why that is not possible.",
        ),
    },
)


@hookimpl
def on_start(run: Run) -> None:
    """Write origin.json into output_dir: config as written, files with hashes, packages, machine."""
    from tunesmith_runs.origin import write

    if run.world.main:
        write(run)
