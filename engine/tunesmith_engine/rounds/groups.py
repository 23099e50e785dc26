"""Groups: the completions of one prompt, with their rewards, advantages and buckets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.errors import DataError, PluginError
from tunesmith.plugins.rollout import Rollout
from tunesmith.run import Run
from tunesmith_engine.batch.examples import Example, segment
from tunesmith_engine.model.generation import Completion, Request, Sampling
from tunesmith_engine.model.policy import Policy
from tunesmith_engine.rounds.ledger import Bucket

Advantages = NDArray[np.float64] | Sequence[NDArray[np.float64]]
SAMPLING = "sampling"
"""The column of a row that changes how its completions are sampled."""
SAMPLING_KEYS = {"temperature": float, "top_p": float, "top_k": int, "min_p": float, "max_tokens": int, "stop": list}
"""Its keys, as servers name them, and their types."""


@dataclass(frozen=True)
class Prompt:
    """A prompt of a round: its example, whose `fields` are the columns of the row, and the seed of its completions."""

    example: Example
    seed: tuple[int, ...]

    def request(self, spec: Rollout) -> Request:
        """Return the request for the completions of the prompt. Raises DataError for a wrong column `sampling`."""
        own = sampling_of(self.example.fields)
        longest = min(own.pop("max_tokens", spec.max_new_tokens), spec.max_new_tokens)
        stop = (*spec.stop, *own.pop("stop", ()))
        values = {"temperature": spec.temperature, "top_p": spec.top_p, "top_k": spec.top_k, "min_p": spec.min_p} | own
        return Request(self.example.prompt, longest, spec.completions, Sampling(**values), stop, self.seed)


def sampling_of(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of sampling that a row sets, by the names in SAMPLING_KEYS. Raises DataError."""
    own = fields.get(SAMPLING) or {}
    if not isinstance(own, dict):
        raise DataError(f"column {SAMPLING!r} is not an object of options: {own!r}", code="row")
    for name, value in own.items():
        kind = SAMPLING_KEYS.get(name)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if kind is None or not (number if kind is float else isinstance(value, kind)):
            help = f"write {', '.join(f'{key}: {kind.__name__}' for key, kind in SAMPLING_KEYS.items())}"
            raise DataError(f"column {SAMPLING!r} has {name}: {value!r}", code="row", help=help)
    return dict(own)


@dataclass
class Group:
    """A prompt and its n completions.

    prompt: the example of the prompt; its `fields` are the columns of the row. completions: [n]. rewards: by label,
    [n]; NaN where a reward does not apply. reward: [n], their weighted sum; NaN where none applies. advantages: one
    number per completion [n], or an array [L] per completion, one number per token. columns: more values for the loss
    by name, each a list of n numbers or arrays [L]. temperature: that of the completions. buckets: [n], where each
    completion ends; those that are not "trained" have no scored tokens.
    """

    prompt: Example
    completions: list[Completion]
    rewards: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    reward: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    advantages: Advantages = field(default_factory=lambda: np.zeros(0))
    columns: dict[str, list[Any]] = field(default_factory=dict)
    temperature: float = 1.0
    buckets: list[Bucket] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.buckets = self.buckets or ["trained"] * len(self.completions)

    @property
    def dead(self) -> bool:
        """True if no reward distinguishes the completions, so that a group-relative advantage is zero.

        Values are compared exactly: the rounding errors of a mean would make a constant reward look alive.
        """
        return not any(is_alive(values) for values in self.rewards.values())

    def example(self, numbers: Iterable[int] | None = None) -> Example:
        """Return the example to train on: the prompt, and a branch for each completion, or for some of them.

        Columns of the batch: "advantage" and `columns`, per sequence or per scored token; "temperature" per sequence;
        and per scored token "sampler_logps", the log-probability under the distribution that it was drawn from.
        """
        prompt = self.prompt.prompt
        example = Example([segment(prompt)], dict(self.prompt.columns), self.prompt.fields, self.prompt.inputs)
        example.origin = self.prompt.origin
        for k in range(len(self.completions)) if numbers is None else numbers:
            completion = self.completions[k]
            weights = completion.weights if self.buckets[k] == "trained" else np.zeros_like(completion.weights)
            columns = {name: values[k] for name, values in self.columns.items()}
            columns |= {"advantage": self.advantages[k], "sampler_logps": completion.logps}
            columns["temperature"] = self.temperature or 1.0  # of greedy completions: that of the model
            for name, value in columns.items():
                columns[name] = np.asarray(value, np.float32) if np.ndim(value) else float(value)
            example.segments.append(segment(completion.tokens, weights, fork=len(prompt), **columns))
        return example


def is_alive(values: NDArray[np.float64]) -> bool:
    """Return True if a reward distinguishes the completions of a group: two of its values are unequal."""
    known = values[~np.isnan(values)]
    return len(known) > 1 and bool((known != known[0]).any())


def set_advantages(groups: Sequence[Group], advantages: Sequence[Advantages]) -> None:
    """Store the advantages that compute_advantages returned. Raises PluginError if their number or length is wrong.

    The advantage of a completion without a reward is 0: it is masked.
    """
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
        if (group.reward.size and np.isnan(group.reward).any()) and not isinstance(values, list):
            values = np.where(np.isnan(group.reward), 0.0, np.asarray(values, np.float64))
        if not all(np.isfinite(v).all() for v in values):
            raise PluginError("compute_advantages returned an advantage that is not finite")
        group.advantages = values


def compute_advantages(run: Run, policy: Policy, groups: Sequence[Group]) -> list[NDArray[np.float64]]:
    """Return the reward as the advantage: REINFORCE without a baseline. The default answer to compute_advantages."""
    return [group.reward for group in groups]
