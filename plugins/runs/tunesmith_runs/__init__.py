"""Describe runs in one line."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

from pydantic import PositiveFloat

from tunesmith import Needs, Plugin, Settings, hookimpl

if TYPE_CHECKING:
    from tunesmith import Batch, Output, Run, Term


class RunsSettings(Settings):
    """Keys of runs."""

    runs_weight: PositiveFloat | None = None
    """Factor of the term that is added to the loss."""


plugin = Plugin(settings=RunsSettings, switches=("runs_weight",), needs=Needs(logps=True))


@hookimpl(wrapper=True)
def compute_loss(run: Run, out: Output, batch: Batch) -> Generator[None, dict[str, Term], dict[str, Term]]:
    """Add the term to those of the method, whichever it is."""
    from tunesmith_runs.term import penalty

    terms = yield
    weight = run.settings(RunsSettings).runs_weight or 0.0
    return {**terms, "runs": penalty(out.logps, batch.weight, weight)}
