"""Advantages of the completions of a round.

Each function takes the groups of a round and the settings, and returns an array [n] for each group. Rewards are NaN
where none applies: they are left out of means, and the engine masks their completions. Standard deviations are those of
samples (n − 1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tunesmith import Group
    from tunesmith_grpo import TRL

EPSILON = 1e-4
"""Added to a standard deviation before the division, as in TRL."""
Values = NDArray[np.float64]
Advantage = Callable[["Sequence[Group]", "TRL", Sequence[float]], list[Values]]
"""A function of the groups, the settings, and the weights of the rewards."""


def mean(values: Values) -> float:
    """Return the mean of the known values; 0 if there is none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else 0.0


def deviation(values: Values) -> float:
    """Return the standard deviation of the known values; exactly 0 if they are equal or fewer than two."""
    known = values[~np.isnan(values)]
    # The mean of equal numbers may differ from them in the last bit.
    return float(known.std(ddof=1)) if len(known) > 1 and (known != known[0]).any() else 0.0


def centered(values: Values) -> Values:
    """Return values minus their mean; exactly 0 if they are equal."""
    known = values[~np.isnan(values)]
    return values - (known[0] if len(known) and not (known != known[0]).any() else mean(values))


def over_round(groups: Sequence[Values], center: bool = False) -> list[Values]:
    """Return values divided by their standard deviation over the round; with `center`, minus their mean before.

    Values whose mean is 0 in each group need no center: its rounding error would make zeros unequal to 0.
    """
    everything = np.concatenate(groups)
    scale = deviation(everything) + EPSILON
    parts = np.split(centered(everything), np.cumsum([len(values) for values in groups])[:-1]) if center else groups
    return [values / scale for values in parts]


def grpo(groups: Sequence[Group], trl: TRL, weights: Sequence[float]) -> list[Values]:
    """Return A = (R − mean of the group) / (deviation + 1e-4) (arXiv 2402.03300, equation 6)."""
    scale = trl.scale_rewards
    if scale in ("none", False):
        return [centered(group.reward) for group in groups]
    batch = deviation(np.concatenate([group.reward for group in groups])) if scale == "batch" else None
    return [
        centered(group.reward) / ((deviation(group.reward) if batch is None else batch) + EPSILON) for group in groups
    ]


def gdpo(groups: Sequence[Group], trl: TRL, weights: Sequence[float]) -> list[Values]:
    """Return each reward normalized in its group, their weighted sum, normalized over the round (arXiv 2601.05242).

    The round is that of all processes.
    """
    sums = []
    for group in groups:
        rewards = list(group.rewards.values())
        parts = [w * centered(r) / (deviation(r) + EPSILON) for w, r in zip(weights, rewards, strict=True)]
        sums.append(np.where(np.isnan(rewards).all(0), np.nan, np.nansum(parts, axis=0)))
    return over_round(sums)


def rloo(groups: Sequence[Group], trl: TRL, weights: Sequence[float]) -> list[Values]:
    """Return A = R − mean of the other completions of the prompt (RLOO, arXiv 2402.14740)."""
    results = []
    for group in groups:
        known = ~np.isnan(group.reward)
        number = int(known.sum())
        # R − (Σ − R) / (n − 1) = (R − mean) · n / (n − 1)
        results.append(centered(group.reward) * (number / (number - 1) if number > 1 else 0.0))
    return over_round(results) if trl.normalize_advantages else results


def reinforce_pp(groups: Sequence[Group], trl: TRL, weights: Sequence[float]) -> list[Values]:
    """Return rewards, minus their mean in the group if that is the baseline, normalized over the round.

    Source: REINFORCE++ (arXiv 2501.03262), and its variant with a baseline.
    """
    by_group = trl.reinforce_baseline == "group"
    if by_group:
        return over_round([centered(group.reward) for group in groups])
    return over_round([group.reward for group in groups], center=True)


ADVANTAGES: dict[str, Advantage] = {"grpo": grpo, "gdpo": gdpo, "rloo": rloo, "reinforce_pp": reinforce_pp}
"""By the value of `rl:`."""
