"""Train on rollouts like groups.py, with the rewards that the YAML names."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from tunesmith import Method, Needs, Plugin, Reward, Rollout, Settings, hookimpl


class Scored(Settings):
    """Settings of the method."""

    scored_rewards: list[dict[str, Any]] = []
    """The arguments of each Reward."""
    scored_abstained: Literal["error", "mask"] = "error"
    """What becomes of completions without a score."""
    scored_timeout: float = 60.0
    """Seconds that a call of a reward may take."""
    scored_workers: int = 1
    """Processes that call rewards."""


def rollout(run):
    options = run.settings(Scored)
    rewards = [Reward(**one, key=("scored_rewards", index)) for index, one in enumerate(options.scored_rewards)]
    return Rollout(
        4, 6, rewards, abstained=options.scored_abstained, reward_timeout=options.scored_timeout,
        reward_workers=options.scored_workers,
    )  # fmt: skip


plugin = Plugin(
    settings=Scored,
    answers={"rl": ("scored",)},
    method=Method(rows=("prompt",)),
    needs=Needs(logps=True),
    rollout=rollout,
)


@hookimpl
def compute_advantages(groups):
    return [np.nan_to_num(group.reward - np.nanmean(group.reward)) for group in groups]


@hookimpl
def compute_loss(out, batch):
    from tunesmith import Term

    return {"policy": Term(-(out.logps * batch.columns["advantage"][batch.sequence]).sum(), "tokens")}
