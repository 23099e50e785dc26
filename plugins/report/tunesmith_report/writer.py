"""When the page of a run is written, and that it can do no harm."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunesmith import Run

NAME = "report.html"
EVERY = 30.0  # seconds between two pages of a run that goes on
SHARE = 0.01  # of a run's time at most is spent on them


class Writer:
    """Writes the page of one run, whole or not at all."""

    def __init__(self, run: Run):
        self.run = run
        self.due = time.monotonic() + EVERY  # a run that is shorter than this is written about once, when it is over

    def refresh(self) -> None:
        """Write the page of a run that goes on, if that was not done just now."""
        if time.monotonic() >= self.due:
            self.write(over=False)

    def close(self) -> None:
        """Write the page of a run that is over. Says so where it can't, and leaves the run's own outcome alone."""
        try:
            self.write(over=True)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            print(f"warning: plugin {self.run.hooks.by_name['report']} can't write {NAME}: {reason}", file=sys.stderr)

    def write(self, over: bool) -> None:
        from tunesmith_report.page import render

        began = time.monotonic()
        text = render(self.run.output_dir, known(self.run, over))
        path = self.run.output_dir / NAME
        partial = path.with_name(f".{NAME}.partial")
        try:
            partial.write_text(text, encoding="utf-8", errors="replace")  # JSON can hold half a surrogate pair
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
        now = time.monotonic()
        self.due = now + max(EVERY, (now - began) / SHARE)


def known(run: Run, over: bool) -> dict[str, Any]:
    """What the run knows better than run.json, which is written at its start and its end; and what is only here."""
    document = run.config.document
    return {
        "over": over,
        "step": run.step,
        "total_steps": run.total_steps,
        "stopped": run.stopped,
        "notes": dict(run.notes),
        "muted": dict(run.hooks.muted),
        "hook_seconds": {f"{plugin}.{hook}": seconds for (plugin, hook), seconds in run.hooks.seconds.items()},
        "hook_calls": {f"{plugin}.{hook}": number for (plugin, hook), number in run.hooks.counts.items()},
        "method": next(call.plugin for call in run.hooks.calls("compute_loss") if not call.wrapper),
        "file": document.name,
        "written": {key: document.where((key,)) for key in document.values},
    }
