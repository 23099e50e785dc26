"""Choose the pair of a group: the completion with the highest reward, and the one with the lowest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith import Group


def sides(group: Group, keep: bool) -> NDArray[Any]:
    """Return the side [n] of each completion: 1 for the better one of the pair, −1 for the worse, 0 for the others.

    Of several completions with the highest or the lowest reward, the first one is taken. Completions that are masked or
    have no reward are not compared. If all rewards are equal, the first completion is the better one and the second the
    worse with `keep`; otherwise there is no pair.

    Sets the bucket of what is left over: "over_budget" beside a pair, and "dead" without one.
    """
    result = np.zeros(len(group.completions))
    compared = [k for k, bucket in enumerate(group.buckets) if bucket == "trained" and not np.isnan(group.reward[k])]
    pair = _pair(group.reward, compared, keep)
    for side, k in zip((1.0, -1.0), pair, strict=False):
        result[k] = side
    for k in compared:
        if k not in pair:
            group.buckets[k] = "over_budget" if pair else "dead"
    return result


def _pair(reward: NDArray[np.float64], compared: Sequence[int], keep: bool) -> tuple[int, ...]:
    """Return the better and the worse of the compared completions, or () if there is no pair."""
    if len(compared) < 2:
        return ()
    best = max(compared, key=lambda k: float(reward[k]))
    worst = min(compared, key=lambda k: float(reward[k]))
    if reward[best] == reward[worst]:
        return (compared[0], compared[1]) if keep else ()
    return best, worst


def missing_ends(groups: Sequence[Group]) -> list[list[float | None]]:
    """Return −1 for each completion without an end, and 0 for the others; None where no other reward applies."""
    scores: list[list[float | None]] = []
    for group in groups:
        known = ~np.isnan(list(group.rewards.values())).all(0)
        ends = [-1.0 if completion.finish_reason == "length" else 0.0 for completion in group.completions]
        scores.append([end if applies else None for end, applies in zip(ends, known, strict=True)])
    return scores
