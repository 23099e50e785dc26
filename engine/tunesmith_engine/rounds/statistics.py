"""Numbers and texts about the groups of a round, for loggers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.run import Run
from tunesmith_engine.batch.terms import Table
from tunesmith_engine.rounds.groups import Group, is_alive

SHOWN = 8
"""Completions of a round that loggers get as texts."""


def statistics(groups: Sequence[Group]) -> dict[str, float]:
    """Return the numbers about a round for loggers, under the names that TRL uses. Lengths are in tokens.

    Terminated completions are those with an end.
    """
    completions = [c for group in groups for c in group.completions]
    lengths = np.array([len(c.tokens) for c in completions] or [0])
    clipped = np.array([c.finish_reason == "length" for c in completions] or [False])
    numbers = _lengths("length", lengths) | _lengths("terminated_length", lengths[~clipped])
    numbers["completions/clipped_ratio"] = float(clipped.mean())
    names = groups[0].rewards if groups else ()
    if names:
        numbers |= _spread("reward", [group.reward for group in groups])
        numbers["frac_reward_zero_std"] = float(np.mean([float(group.dead) for group in groups]))
    for name in names:
        values = [group.rewards[name] for group in groups]
        spread = _spread("x", values)
        numbers |= {f"rewards/{name}/mean": spread["x"], f"rewards/{name}/std": spread["x_std"]}
        numbers[f"rewards/{name}/frac_zero_std"] = float(np.mean([float(not is_alive(v)) for v in values]))
    return numbers


def _lengths(name: str, lengths: NDArray[Any]) -> dict[str, float]:
    """Return mean, minimum and maximum of lengths; 0 if there are none."""
    values = lengths if len(lengths) else np.zeros(1)
    of = {"mean": values.mean(), "min": values.min(), "max": values.max()}
    return {f"completions/{kind}_{name}": float(value) for kind, value in of.items()}


def _spread(name: str, groups: list[NDArray[np.float64]]) -> dict[str, float]:
    """Return the mean over all completions, and the mean over groups of the standard deviation within the group."""
    values = np.concatenate(groups)
    known = values[~np.isnan(values)]
    deviations = [float(np.nanstd(g, ddof=1)) for g in groups if (~np.isnan(g)).sum() > 1]
    return {name: float(known.mean()) if len(known) else 0.0, f"{name}_std": float(np.mean(deviations or [0.0]))}


def table(run: Run, groups: Sequence[Group]) -> Table:
    """Return prompts and completions of the first groups as texts, with their rewards, for `record.tables`.

    A reward that does not apply has an empty cell.
    """
    rows: list[dict[str, str | float]] = []
    for group in groups:
        prompt = run.tokenizer.decode(group.prompt.prompt)
        for k, completion in enumerate(group.completions):
            if len(rows) == SHOWN:
                return rows
            text = run.tokenizer.decode(completion.tokens.tolist(), skip_special_tokens=True)
            row: dict[str, str | float] = {"prompt": prompt, "completion": text}
            row["advantage"] = float(np.mean(group.advantages[k])) if len(group.advantages) else 0.0
            row["finish"] = completion.finish_reason if group.buckets[k] == "trained" else group.buckets[k]
            for name, values in group.rewards.items():
                row[f"reward:{name}"] = "" if np.isnan(values[k]) else float(values[k])
            rows.append(row)
    return rows
