"""Prepare the groups of a round: advantages, the KL divergence in the reward, and what tokens count."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith import Group, Needs, Policy, Run
from tunesmith_grpo import GRPOSettings
from tunesmith_grpo.advantages import ADVANTAGES
from tunesmith_grpo.loss_names import OFFERED_ADVANTAGES, UNCERTAIN

NEEDS = Needs(logps=True, temperature=True)


def advantages(run: Run, policy: Policy, groups: Sequence[Group]) -> list[NDArray[Any]]:
    """Return the advantages [n] of each group, and set the columns that the loss reads."""
    trl = run.settings(GRPOSettings).trl
    assert run.rollout is not None
    weights = [reward.weight for reward in run.rollout.scored]
    rule = str(trl.advantage or aggregation(run))
    function = ADVANTAGES[rule] if rule in ADVANTAGES else run.offered(OFFERED_ADVANTAGES, rule, ("trl", "advantage"))
    rewards = [group.reward for group in groups]
    subtract_kl(run, policy, groups)
    values = list(function(groups, trl, weights))
    for group, reward in zip(groups, rewards, strict=True):
        group.reward = reward  # loggers show it without the divergence
    kept = [group for group in groups if not (run.rollout.dead_groups == "drop" and group.dead)]
    number = sum(map(trained_tokens, kept))
    steps = run.rollout.minibatches if run.purpose == "train" else 1
    for group in groups:
        # dapo divides by the tokens of a mean step of the round, so that each token of the round counts the same.
        group.columns["step_tokens"] = [number / steps] * len(group.completions)
    if trl.top_entropy_quantile < 1:
        for group in groups:
            group.columns[UNCERTAIN] = [np.zeros(len(c.tokens), np.float32) for c in group.completions]
        mark_uncertain(policy, kept, trl.top_entropy_quantile)
    return values


def aggregation(run: Run) -> str:
    """Return the rule of `rl:`, or the one that multi_objective_aggregation names."""
    named = run.settings(GRPOSettings).trl.multi_objective_aggregation
    return {"normalize_then_sum": "gdpo", "sum_then_normalize": "grpo"}.get(str(named), str(run.core.rl))


def trained_tokens(group: Group) -> int:
    """Return the tokens of a group that are trained on."""
    pairs = zip(group.completions, group.buckets, strict=True)
    return sum(int(np.count_nonzero(c.weights)) for c, bucket in pairs if bucket == "trained")


def subtract_kl(run: Run, policy: Policy, groups: Sequence[Group]) -> None:
    """For rl: rloo and reinforce_pp, subtract β times the KL divergence of each completion from its reward.

    It is estimated by the sum of log π(t) − log π_ref(t) over the tokens, with the policy that sampled them.
    """
    beta = run.settings(GRPOSettings).trl.beta
    if not beta or run.core.rl not in ("rloo", "reinforce_pp"):
        return
    for group in groups:
        group.advantages = np.zeros(len(group.completions))  # the examples below need a value
    examples = [group.example() for group in groups]
    own = policy.score(examples, NEEDS)
    with policy.reference() as reference:
        others = reference.score(examples, NEEDS)
    for group, segments, of_reference in zip(groups, own, others, strict=True):
        divergence = [np.nansum(a["logps"] - b["logps"]) for a, b in zip(segments, of_reference, strict=True)]
        group.reward = group.reward - beta * np.array(divergence, np.float64)
        group.columns["kl"] = [float(value) for value in divergence]


def mark_uncertain(policy: Policy, groups: Sequence[Group], share: float) -> None:
    """Set the column "uncertain" to 1 for the tokens with the highest entropy, and to 0 for the others.

    The threshold is that of the whole round, so it depends neither on micro-batches nor on processes.
    """
    for group in groups:
        group.advantages = np.zeros(len(group.completions))
    scores = policy.score([group.example() for group in groups], Needs(entropy=True, temperature=True))
    everything = np.concatenate([np.zeros(0), *(values["entropy"] for group in scores for values in group)])
    known = everything[~np.isnan(everything)]
    least = np.quantile(known, 1 - share) if len(known) else 0.0
    for group, segments in zip(groups, scores, strict=True):
        group.columns[UNCERTAIN] = [(values["entropy"] >= least).astype(np.float32) for values in segments]
