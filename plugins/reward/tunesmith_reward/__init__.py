"""Outcome reward models: score answers, learned from pairs of a better and a worse one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import NonNegativeFloat

from tunesmith import Head, Method, Needs, Plugin, Settings, hookimpl

if TYPE_CHECKING:
    from tunesmith import Batch, Output, Run, StepRecord, Term


class RewardSettings(Settings):
    """Options of the method."""

    reward_model: bool = False
    """Train a model that scores answers: its head predicts one number at the end of an answer, not the next token."""
    center_rewards_coefficient: NonNegativeFloat = 0.0
    """Weight of the penalty that draws the sum of both rewards of a pair to 0, since the loss of a pair does not
    determine their level; 0.01 is common (arXiv 2312.09244)."""


plugin = Plugin(
    settings=RewardSettings,
    switches=("reward_model",),
    offers={"saved_models": {"outcome reward models": "tunesmith_reward.opening:keys"}},
    method=Method(rows=("pair",), exports="sequence_classifier"),
    heads={"score": Head(at="last", names=("reward",))},
    needs=Needs(heads=("score",)),
    metrics=("bradley_terry", "centering", "accuracy", "margin", "mean_reward", "min_reward", "max_reward"),
)


@hookimpl
def compute_loss(run: Run, out: Output, batch: Batch) -> dict[str, Term]:
    from tunesmith_reward.extremes import Extremes
    from tunesmith_reward.loss import terms

    scores = out.heads["score"]
    run.owned(Extremes).watch(scores, batch)
    coefficient = run.settings(RewardSettings).center_rewards_coefficient
    return terms(scores[:, 0].float(), batch.columns.get("margin"), coefficient)


@hookimpl
def on_step(run: Run, record: StepRecord) -> None:
    """Log the smallest and the largest reward of the step and of an evaluation that followed it."""
    from tunesmith_reward.extremes import Extremes

    run.owned(Extremes).report(record)
