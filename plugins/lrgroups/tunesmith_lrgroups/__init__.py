"""Learning rates for parts of the model: embeddings, or modules that a list names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import Field, PositiveFloat

from tunesmith import ConfigError, Plugin, Settings, hookimpl

if TYPE_CHECKING:
    from torch import nn

    from tunesmith import Run


class LearningRateGroup(Settings):
    """A learning rate for some modules."""

    name: str
    """The name of the group, for messages."""
    modules: list[str] = Field(min_length=1)
    """Parts of the names of its parameters, such as self_attn or layers.0."""
    lr: PositiveFloat
    """Its learning rate at the peak of the schedule."""


class LearningRateSettings(Settings):
    """Learning rates that differ from `learning_rate`. The schedule lowers all of them by the same factor."""

    lr_groups: list[LearningRateGroup] | None = Field(None, min_length=1)
    """Groups of modules with their own learning rate. A parameter belongs to the first group that names it."""
    embedding_lr: PositiveFloat | None = None
    """The learning rate of the embeddings and of the head that predicts tokens."""
    embedding_lr_scale: PositiveFloat | None = None
    """The same as a factor of learning_rate."""


plugin = Plugin(
    settings=LearningRateSettings,
    switches=("embedding_lr", "embedding_lr_scale", "lr_groups"),
    on_resume=dict.fromkeys(LearningRateSettings.model_fields, "accept"),
)


@hookimpl
def validate(run: Run) -> None:
    settings, errors = run.settings(LearningRateSettings), []
    if settings.embedding_lr is not None and settings.embedding_lr_scale is not None:
        errors.append(run.config.error("embedding_lr", "and embedding_lr_scale are both set", help="keep one of them"))
    names = [group.name for group in settings.lr_groups or ()]
    for index, name in enumerate(names):
        if name in names[:index]:
            path = ("lr_groups", index, "name")
            errors.append(run.config.error(path, f"is the name of two groups: {name}", help="rename one"))
    if errors:
        raise ConfigError(problem for error in errors for problem in error.problems)


@hookimpl
def learning_rate_factors(run: Run, model: nn.Module) -> Mapping[str, float]:
    from tunesmith_lrgroups.factors import factors

    return factors(run, model, run.settings(LearningRateSettings))
