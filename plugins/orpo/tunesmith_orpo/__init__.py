"""ORPO: supervised fine-tuning on chosen answers, and an odds ratio that pushes the rejected ones away."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import PositiveFloat

from tunesmith import Method, Needs, Plugin, Settings, hookimpl

if TYPE_CHECKING:
    from tunesmith import Batch, Output, Run, Term


class OrpoSettings(Settings):
    """The weight of the odds ratio."""

    orpo_alpha: PositiveFloat = 0.1
    """How much the odds ratio counts beside the likelihood of the chosen answer: the paper's lambda."""


plugin = Plugin(
    settings=OrpoSettings,
    answers={"rl": ("orpo",)},
    method=Method(rows=("pair",)),
    needs=Needs(logps=True),
)


@hookimpl
def prepare_step(batches: Sequence[Batch]) -> None:
    """Count what the likelihood is divided by."""
    from tunesmith import chosen_tokens

    for batch in batches:
        batch.counts["chosen_tokens"] = chosen_tokens(batch)


@hookimpl
def compute_loss(run: Run, out: Output, batch: Batch) -> dict[str, Term]:
    from tunesmith_orpo.loss import orpo

    return orpo(batch, out.logps, run.settings(OrpoSettings).orpo_alpha)
