"""Process reward models: judge whether each step of a solution is right, learned from labeled steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith import Head, Method, Needs, Plugin, Settings, hookimpl

if TYPE_CHECKING:
    from tunesmith import Batch, Output, Term


class ProcessRewardSettings(Settings):
    """The switch of the method. How steps are written and cut is set in each dataset entry."""

    process_reward_model: bool = False
    """Train a model that judges steps: its head predicts a label, wrong or right, at the end of each step."""


plugin = Plugin(
    settings=ProcessRewardSettings,
    switches=("process_reward_model",),
    offers={"saved_models": {"process reward models": "tunesmith_prm.opening:keys"}},
    method=Method(rows=("stepwise",), exports="token_classifier"),
    heads={"score": Head(labels=2, at="points", names=("wrong", "right"))},
    needs=Needs(heads=("score",)),
    metrics=("steps", "accuracy"),
)


@hookimpl
def compute_loss(out: Output, batch: Batch) -> dict[str, Term]:
    from tunesmith_prm.loss import terms

    return terms(out.heads["score"].float(), batch.columns["label"])
