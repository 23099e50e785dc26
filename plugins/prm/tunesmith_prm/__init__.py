"""Process reward models: whether each step of a solution is right, learnt from labelled steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith import Method, Needs, Plugin, Settings, hookimpl

if TYPE_CHECKING:
    from collections.abc import Generator

    from torch import nn

    from tunesmith import Batch, LanguageModel, Output, Run, Term


class ProcessRewardSettings(Settings):
    """The method has nothing to choose; how steps are written and cut is the dataset's."""

    process_reward_model: bool = False
    """Train a model that judges steps: a head of two labels, wrong and right, where each step ends."""


plugin = Plugin(
    settings=ProcessRewardSettings,
    switches=("process_reward_model",),
    method=Method(rows=("stepwise",), head="score", num_labels=2),
    needs=Needs(scores=True),
)


@hookimpl(wrapper=True)
def load_model(run: Run, role: str) -> Generator[None, LanguageModel, LanguageModel]:
    """Have a token classifier loaded where a score head is asked for: one label for each token, not for a sequence."""
    from tunesmith_prm.head import by_any_name, token_classifiers

    with token_classifiers(run, role):
        return by_any_name((yield))


@hookimpl
def patch_model(run: Run, model: nn.Module) -> nn.Module:
    """Change no weight; name the labels in the model's config."""
    from tunesmith_prm.head import describe

    describe(run, model)
    return model


@hookimpl
def compute_loss(out: Output, batch: Batch) -> dict[str, Term]:
    from tunesmith_prm.loss import terms

    return terms(out.scores.float(), batch.columns["label"])
