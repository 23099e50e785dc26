"""ORPO: supervised fine-tuning on chosen answers, with an odds ratio that penalizes rejected ones."""

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
    """Weight of the odds ratio relative to the likelihood of the chosen answer: λ in the paper."""


plugin = Plugin(
    settings=OrpoSettings,
    answers={"rl": ("orpo",)},
    method=Method(rows=("pair",)),
    needs=Needs(logps=True),
    metrics=(
        "nll_loss",
        "odds_ratio_loss",
        "log_odds_ratio",
        "log_odds_chosen",
        "rewards/chosen",
        "rewards/rejected",
        "rewards/margins",
        "rewards/accuracies",
        "logps/chosen",
        "logps/rejected",
    ),
)


@hookimpl
def prepare_step(batches: Sequence[Batch]) -> None:
    from tunesmith import count_chosen_tokens

    count_chosen_tokens(batches)


@hookimpl
def compute_loss(run: Run, out: Output, batch: Batch) -> dict[str, Term]:
    from tunesmith_orpo.loss import orpo

    return orpo(batch, out.logps, run.settings(OrpoSettings).orpo_alpha)
