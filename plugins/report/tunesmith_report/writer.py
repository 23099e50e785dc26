"""Decide when to write the page of a run."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from tunesmith.next_command import train_command

if TYPE_CHECKING:
    from tunesmith import Run

NAME = "report.html"
EVERY = 30.0  # least seconds between two pages while the run goes on
SHARE = 0.01  # the largest share of the run time that is spent on pages


class Writer:
    """A writer of one run's page, which replaces the file atomically."""

    def __init__(self, run: Run):
        self.run = run
        self.due = time.monotonic() + EVERY  # shorter runs get their page only at the end

    def refresh(self) -> None:
        """Write the page while the run goes on, unless it was written recently."""
        if time.monotonic() >= self.due:
            self.write(over=False)

    def close(self) -> None:
        """Write the page at the end of the run."""
        self.write(over=True)

    def write(self, over: bool) -> None:
        from tunesmith_report.page import render

        began = time.monotonic()
        text = render(self.run.output_dir, live_values(self.run, over))
        path = self.run.output_dir / NAME
        partial = path.with_name(f".{NAME}.partial")
        try:
            partial.write_text(text, encoding="utf-8", errors="replace")  # JSON strings may contain lone surrogates
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
        now = time.monotonic()
        self.due = now + max(EVERY, (now - began) / SHARE)


def live_values(run: Run, over: bool) -> dict[str, Any]:
    """Return values that are newer than those in run.json, or not in it.

    run.json is written only at the start and the end of a run. over: True if the run has ended.
    """
    document = run.config.document
    seconds, counts = dict(run.hooks.seconds), dict(run.hooks.counts)  # copies: the training thread adds to them
    return {
        "over": over,
        "step": run.step,
        "total_steps": run.total_steps,
        "stopped": run.stopped,
        "notes": dict(run.notes),
        "muted": dict(run.hooks.muted),
        "hook_seconds": {f"{plugin}.{hook}": spent for (plugin, hook), spent in seconds.items()},
        "hook_calls": {f"{plugin}.{hook}": number for (plugin, hook), number in counts.items()},
        "method": next(call.plugin for call in run.hooks.calls("compute_loss") if not call.wrapper),
        "file": document.name,
        "resume_command": train_command(document, resume_from_checkpoint="auto"),
        "written": {key: document.where((key,)) for key in document.values},
    }
