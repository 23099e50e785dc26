"""Process reward models: judge whether each step of a solution is right, learned from labeled steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith import Method, Needs, Plugin, Settings, hookimpl

if TYPE_CHECKING:
    from collections.abc import Generator

    from torch import nn

    from tunesmith import Batch, LanguageModel, ModelSpec, Output, Run, Term


class ProcessRewardSettings(Settings):
    """The switch of the method. How steps are written and cut is set in each dataset entry."""

    process_reward_model: bool = False
    """Train a model that judges steps: its head predicts a label, wrong or right, at the end of each step."""


plugin = Plugin(
    settings=ProcessRewardSettings,
    switches=("process_reward_model",),
    method=Method(rows=("stepwise",), head="score", num_labels=2),
    needs=Needs(scores=True),
)


@hookimpl(wrapper=True)
def load_model(run: Run, spec: ModelSpec) -> Generator[None, LanguageModel, LanguageModel]:
    """Load a token classifier as the model with a score head: it has a label for each token, not for a sequence."""
    from tunesmith_prm.head import by_any_name, token_classifiers

    with token_classifiers(run, spec.name):
        return by_any_name((yield))


@hookimpl
def patch_model(run: Run, name: str, model: nn.Module) -> nn.Module:
    """Write the names of the labels into the model's config. Changes no weights."""
    from tunesmith_prm.head import describe

    if name == "policy":
        describe(run, model)
    return model


@hookimpl
def compute_loss(out: Output, batch: Batch) -> dict[str, Term]:
    from tunesmith_prm.loss import terms

    return terms(out.scores.float(), batch.columns["label"])
