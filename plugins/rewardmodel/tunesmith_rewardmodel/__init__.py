"""A reward that is a model: a sequence classifier with one label scores each completion. The command score uses one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tunesmith import Plugin, hookimpl

if TYPE_CHECKING:
    from tunesmith import Group, Run

NAME = "reward_model"
HELP = "Score the answers in a file with a reward model."
plugin = Plugin(offers={"rewards": {NAME: None}}, commands={"score": ("tunesmith_rewardmodel.command:score", HELP)})


@hookimpl
def validate(run: Run) -> None:
    """Check the options of each reward model, and load it with the policy."""
    from tunesmith_rewardmodel.models import declare

    declare(run)


@hookimpl
def score_rewards(
    run: Run, name: str, groups: Sequence[Group], options: Mapping[str, Any]
) -> Sequence[Sequence[float | None]]:
    from tunesmith_rewardmodel.score import scores

    return scores(run, groups, options)
