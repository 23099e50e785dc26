"""Groups: the completions of one prompt, their rewards and advantages, and the numbers about them for loggers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.errors import PluginError
from tunesmith.plugins.rollout import Rollout
from tunesmith.run import Run
from tunesmith_engine.batch.examples import Example, segment
from tunesmith_engine.model.generation import Completion, Request, Sampling
from tunesmith_engine.model.policy import Policy

Advantages = NDArray[np.float64] | Sequence[NDArray[np.float64]]


@dataclass(frozen=True)
class Prompt:
    """A prompt of a round: its example, whose `fields` are the columns of the row, and the seed of its completions."""

    example: Example
    seed: tuple[int, ...]

    def request(self, spec: Rollout) -> Request:
        """Return the request for the completions of the prompt."""
        sampling = Sampling(spec.temperature, spec.top_p, spec.top_k)
        return Request(
            self.example.prompt, spec.max_new_tokens, spec.completions, sampling, tuple(spec.stop), self.seed
        )


@dataclass
class Group:
    """A prompt and its n completions.

    prompt: the example of the prompt; its `fields` are the columns of the row. completions: [n]. rewards: by name, [n];
    NaN where a reward does not apply. reward: [n], their weighted sum. advantages: one number per completion [n], or an
    array [L] per completion, one number per token. columns: more values for the loss by name, each a list of n numbers
    or arrays [L].
    """

    prompt: Example
    completions: list[Completion]
    rewards: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    reward: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    advantages: Advantages = field(default_factory=lambda: np.zeros(0))
    columns: dict[str, list[Any]] = field(default_factory=dict)

    @property
    def dead(self) -> bool:
        """True if no reward distinguishes the completions, so that a group-relative advantage is zero."""
        return all(bool(np.isnan(r).all()) or float(np.nanmax(r) - np.nanmin(r)) == 0 for r in self.rewards.values())

    def example(self) -> Example:
        """Return the example to train on: the prompt, and a branch for each completion.

        Columns of the batch: "advantage" and `columns`, per sequence or per scored token, and per scored token
        "sampler_logps", the log-probability under the distribution that it was drawn from.
        """
        prompt = self.prompt.prompt
        example = Example([segment(prompt)], dict(self.prompt.columns), self.prompt.fields, self.prompt.inputs)
        example.origin = self.prompt.origin
        for k, completion in enumerate(self.completions):
            columns = {name: values[k] for name, values in self.columns.items()}
            columns |= {"advantage": self.advantages[k], "sampler_logps": completion.logps}
            for name, value in columns.items():
                columns[name] = np.asarray(value, np.float32) if np.ndim(value) else float(value)
            example.segments.append(segment(completion.tokens, completion.weights, fork=len(prompt), **columns))
        return example


def set_advantages(groups: Sequence[Group], advantages: Sequence[Advantages]) -> None:
    """Store the advantages that compute_advantages returned. Raises PluginError if their number or length is wrong."""
    if len(advantages) != len(groups):
        raise PluginError(f"compute_advantages returned {len(advantages)} values for {len(groups)} groups")
    for group, values in zip(groups, advantages, strict=True):
        lengths = [len(c.tokens) for c in group.completions]
        right = len(values) == len(lengths) and all(
            np.ndim(v) == 0 or np.shape(v) == (n,) for v, n in zip(values, lengths, strict=True)
        )
        if not right:
            shape = [np.shape(v) for v in values]
            message = f"compute_advantages returned shapes {shape} for completions of {lengths} tokens"
            raise PluginError(message, help="return one number per completion, or one array [L] per completion")
        if not all(np.isfinite(v).all() for v in values):
            raise PluginError("compute_advantages returned an advantage that is not finite")
        group.advantages = values


def compute_advantages(run: Run, policy: Policy, groups: Sequence[Group]) -> list[NDArray[np.float64]]:
    """Return the reward as the advantage: REINFORCE without a baseline. The default answer to compute_advantages."""
    return [group.reward for group in groups]


def statistics(groups: Sequence[Group]) -> dict[str, float]:
    """Return the numbers about a round for loggers, under the names that TRL uses. Lengths are in tokens."""
    completions = [c for group in groups for c in group.completions]
    lengths = np.array([len(c.tokens) for c in completions] or [0])
    numbers: dict[str, float] = {
        "completions/mean_length": float(lengths.mean()),
        "completions/min_length": float(lengths.min()),
        "completions/max_length": float(lengths.max()),
        "completions/clipped_ratio": float(np.mean([float(c.finish_reason == "length") for c in completions] or [0.0])),
    }
    names = groups[0].rewards if groups else ()
    if names:
        numbers |= _spread("reward", [group.reward for group in groups])
        numbers["frac_reward_zero_std"] = float(np.mean([float(group.dead) for group in groups]))
    for name in names:
        values = _spread("x", [group.rewards[name] for group in groups])
        numbers |= {f"rewards/{name}/mean": values["x"], f"rewards/{name}/std": values["x_std"]}
    return numbers


def _spread(name: str, groups: list[NDArray[np.float64]]) -> dict[str, float]:
    """Return the mean over all completions, and the mean over groups of the standard deviation within the group."""
    values = np.concatenate(groups)
    known = values[~np.isnan(values)]
    deviations = [float(np.nanstd(g, ddof=1)) for g in groups if (~np.isnan(g)).sum() > 1]
    return {name: float(known.mean()) if len(known) else 0.0, f"{name}_std": float(np.mean(deviations or [0.0]))}
