"""Online DPO: the better of several generated completions of a prompt against the worse (arXiv 2402.04792)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import PositiveFloat, PositiveInt

from tunesmith import (
    Method,
    Needs,
    OnlineSettings,
    Plugin,
    Reward,
    Rollout,
    RolloutSettings,
    check_online,
    hookimpl,
    rollout_of,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tunesmith import Batch, Group, Output, Policy, Run, Term

MISSING_EOS = "online_dpo_missing_eos"
"""The name of the reward that stands for missing_eos_penalty."""


class TRL(RolloutSettings):
    """Keys of the block `trl:`, under the names of TRL."""

    num_generations: PositiveInt = 2
    """Completions sampled for each prompt. The one with the highest reward is compared with the one with the lowest."""
    beta: PositiveFloat = 0.1
    """β: how strongly the policy is kept close to the reference; the τ of ipo."""
    loss_type: Literal["sigmoid", "ipo"] = "sigmoid"
    """Loss of a pair: that of DPO (arXiv 2305.18290) or IPO (arXiv 2310.12036)."""
    missing_eos_penalty: PositiveFloat | None = None
    """Subtracted from the reward of a completion that reached max_completion_length without an end."""
    dead_groups: Literal["keep", "drop", "redraw"] = "drop"
    """Treatment of a group whose completions all have the same rewards: drop it; redraw: replace it with a group for
    the next prompt; or keep it: the first completion counts as the better one."""


class OnlineDPOSettings(OnlineSettings):
    """Keys of online DPO."""

    trl: TRL = TRL()
    """How completions are sampled and what the loss is, under the names of TRL."""


def _rollout(run: Run) -> Rollout:
    settings = run.settings(OnlineDPOSettings)
    # The loss has no ratio to the policy that sampled, so it needs no log-probabilities of it.
    rollout = rollout_of(run, settings, settings.trl, old_logps=False)
    penalty = settings.trl.missing_eos_penalty
    if penalty is None:
        return rollout
    # As a reward, the penalty counts when groups with equal rewards are dropped or redrawn.
    reward = Reward(MISSING_EOS, penalty, label="missing_eos", key=("trl", "missing_eos_penalty"))
    return dataclasses.replace(rollout, rewards=(*rollout.scored, reward))


plugin = Plugin(
    settings=OnlineDPOSettings,
    shared=("rewards",),
    answers={"rl": ("online_dpo",)},
    method=Method(rows=("prompt",)),
    needs=Needs(logps=True, temperature=True, reference=True),
    rollout=_rollout,
    offers={"rewards": {MISSING_EOS: None}},
)


@hookimpl
def validate(run: Run) -> None:
    """Refuse keys that contradict each other or have no effect."""
    from tunesmith_onlinedpo.checks import mistakes

    settings = run.settings(OnlineDPOSettings)
    check_online(run, settings, settings.trl, mistakes(run, settings.trl))


@hookimpl
def score_rewards(
    run: Run, name: str, groups: Sequence[Group], options: Mapping[str, Any]
) -> Sequence[Sequence[float | None]]:
    from tunesmith_onlinedpo.pairing import missing_ends

    return missing_ends(groups)


@hookimpl
def compute_advantages(run: Run, groups: Sequence[Group]) -> Sequence[NDArray[Any]]:
    """Return 1 for the better completion of each group, −1 for the worse, and 0 for the others."""
    from tunesmith_onlinedpo.pairing import sides

    keep = run.settings(OnlineDPOSettings).trl.dead_groups == "keep"
    return [sides(group, keep) for group in groups]


@hookimpl
def prepare_step(policy: Policy, batches: Sequence[Batch]) -> None:
    """Add the log-probabilities of the reference, and the number of pairs."""
    from tunesmith_onlinedpo.loss import prepare

    prepare(policy, batches)


@hookimpl
def compute_loss(run: Run, out: Output, batch: Batch) -> dict[str, Term]:
    from tunesmith_onlinedpo.loss import terms

    return terms(run.settings(OnlineDPOSettings).trl, out, batch)
