"""Train on rollouts like groups.py, with the rewards that the YAML names."""

import numpy as np

import tunesmith as ts


class Scored(ts.Settings):
    """Settings of the method."""

    scored_rewards: list[dict] = []
    """The arguments of each Reward."""
    scored_abstained: str = "error"
    """Treatment of completions without a score."""
    scored_timeout: float = 60.0
    """Seconds that a call of a reward may take."""
    scored_workers: int = 1
    """Processes that call rewards."""


def rollout(run):
    o = run.settings(Scored)
    rewards = [ts.Reward(**one, key=("scored_rewards", i)) for i, one in enumerate(o.scored_rewards)]
    return ts.Rollout(
        4, 6, rewards, abstained=o.scored_abstained, reward_timeout=o.scored_timeout, reward_workers=o.scored_workers
    )


METHOD = {"method": ts.Method(("prompt",)), "needs": ts.Needs(logps=True), "rollout": rollout}
plugin = ts.Plugin(settings=Scored, answers={"rl": ("scored",)}, **METHOD)


@ts.hookimpl
def compute_advantages(groups):
    return [np.nan_to_num(group.reward - np.nanmean(group.reward)) for group in groups]


@ts.hookimpl
def compute_loss(out, batch):
    return {"policy": ts.Term(-(out.logps * batch.columns["advantage"][batch.sequence]).sum(), "tokens")}
