"""Score the completions of groups with the rewards that a method names."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.errors import DataError, PluginError, TunesmithError
from tunesmith.plugins.implementation import place
from tunesmith.plugins.rollout import Reward, Rollout
from tunesmith.run import Run
from tunesmith_engine.rounds.groups import Group


def score(run: Run, spec: Rollout, groups: Sequence[Group]) -> None:
    """Set `rewards` and `reward` of each group. Raises PluginError for a reward that returns something else.

    Call it on all processes with the same groups. A reward function scores this process's share of the groups; a
    plugin's score_rewards gets all of them, because a model may need every process.
    """
    for reward in spec.scored:
        name, function = reward.label, offered(run, reward)
        scores = _by_function(run, reward, function, groups) if function else _by_hook(run, reward, groups)
        for group, values in zip(groups, scores, strict=True):
            group.rewards[name] = np.array([np.nan if v is None else float(v) for v in values])
            if len(values) != len(group.completions):
                message = f"reward {name!r} returned {len(values)} scores for {len(group.completions)} completions"
                raise PluginError(message)
            if np.isinf(group.rewards[name]).any():
                raise PluginError(f"reward {name!r} returned an infinite score")
    for group in groups:
        group.reward = weighted_sum(spec, group)


def weighted_sum(spec: Rollout, group: Group) -> NDArray[np.float64]:
    """Return the sum [n] of rewards times their weights, over those that apply; NaN where none does.

    Without rewards it is 0. Raises DataError if that is an error of the method.
    """
    if not spec.rewards:
        return np.zeros(len(group.completions))
    values = np.stack([group.rewards[reward.label] for reward in spec.scored])
    total: NDArray[np.float64] = np.nansum(values * np.array([[r.weight] for r in spec.scored]), axis=0)
    nobody = np.isnan(values).all(0)
    if nobody.any() and spec.abstained == "error":
        entry, row = group.prompt.origin
        message = f"no reward scores a completion: {', '.join(group.rewards)} returned None"
        help = "fix the column that they compare with, drop the row, or mask such completions"
        raise DataError(message, where=f"row {row + 1} of entry {entry}", code="abstained", help=help)
    return np.where(nobody, np.nan, total)


def offered(run: Run, reward: Reward) -> Callable[..., Any] | None:
    """Return the reward function of a name, or None if a plugin answers score_rewards for it."""
    if reward.name in run.hooks.keys("score_rewards"):
        return None
    function: Callable[..., Any] = run.offered("rewards", reward.name, reward.key)
    return function


def _by_hook(run: Run, reward: Reward, groups: Sequence[Group]) -> Sequence[Sequence[Any]]:
    scores: Sequence[Sequence[Any]] = run.hooks.score_rewards(run, reward.name, groups, reward.options)
    if len(scores) != len(groups):
        raise PluginError(f"score_rewards returned {len(scores)} rows for {len(groups)} groups: {reward.label}")
    return scores


def _by_function(run: Run, reward: Reward, function: Callable[..., Any], groups: Sequence[Group]) -> list[list[Any]]:
    """Call a reward function on this process's share of the groups, and exchange the scores.

    As in TRL, the function gets lists with one item per completion, by keyword: prompts and completions as text,
    completion_ids, and each column of the rows. It returns a number for each, or None where it does not apply.
    """
    data, name = run.world.data, reward.label
    own = groups[data.rank :: data.size]
    decode = run.tokenizer.decode
    columns: dict[str, list[Any]] = {"prompts": [], "completions": [], "completion_ids": []}
    for group in own:
        for completion in group.completions:
            columns["prompts"].append(decode(group.prompt.prompt))
            columns["completions"].append(decode(completion.tokens.tolist(), skip_special_tokens=True))
            columns["completion_ids"].append(completion.tokens.tolist())
    for field in sorted({field for group in own for field in group.prompt.fields} - columns.keys()):
        columns[field] = [group.prompt.fields.get(field) for group in own for _ in group.completions]
    parameters = inspect.signature(function).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        columns = {column: values for column, values in columns.items() if column in parameters}
    try:
        values = list(map(_plain, function(**columns, **reward.options))) if own else []
    except TunesmithError:
        raise
    except Exception as error:
        message = f"reward {name!r} failed: {type(error).__name__}: {error}"
        raise PluginError(message, where=place(error), code="hook-failed") from error
    number = sum(len(group.completions) for group in own)
    if len(values) != number:
        raise PluginError(f"reward {name!r} returned {len(values)} scores for {number} completions")
    scores = iter(values)
    own_scores = [[next(scores) for _ in group.completions] for group in own]
    shares = run.world.gather(own_scores, axis="data")
    return [shares[i % data.size][i // data.size] for i in range(len(groups))]


def _plain(score: Any) -> float | None:
    return None if score is None else float(score)
