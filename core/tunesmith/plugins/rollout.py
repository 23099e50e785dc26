"""Declare how a method generates and scores the completions that it trains on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tunesmith.errors import PluginError


@dataclass(frozen=True)
class Reward:
    """A reward of a method.

    Args:
        name: what a plugin offers or answers, or a function in a file of the user: "./my_reward.py:score".
        weight: its factor in the sum of the rewards.
        options: keyword arguments of the function, or the `options` of score_rewards.
        label: its name in metrics; by default the name, without the file. Labels must be unique.
        key: the place in the YAML that names it, for errors.
    """

    name: str
    weight: float = 1.0
    options: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""
    key: tuple[str | int, ...] = ("rl",)

    def __post_init__(self) -> None:
        if not self.label:
            object.__setattr__(self, "label", self.name.rpartition(":")[2] if self.in_file else self.name)

    @property
    def in_file(self) -> bool:
        """True for a function in a file of the user."""
        file, colon, function = self.name.rpartition(":")
        return bool(colon) and file.endswith(".py") and function.isidentifier()


@dataclass(frozen=True)
class Rollout:
    """The rounds of a method that trains on generated completions (an online method).

    An optimizer step trains on micro_batch_size x gradient_accumulation_steps x processes completions, as in TRL. A
    round draws prompts for `minibatches` such steps, samples `completions` for each prompt, scores them, and trains on
    each minibatch `iterations` times, so it takes minibatches x iterations optimizer steps.

    Args:
        completions: sampled for each prompt; together they are a group.
        max_new_tokens: longest completion.
        rewards: what scores the completions. A string is short for `Reward(name)`.
        temperature, top_p, top_k, min_p: how tokens are drawn. The column `sampling` of a row changes them for its
            prompt.
        stop: strings that end a completion.
        minibatches: optimizer steps of a pass over the round.
        iterations: passes over the round.
        dead_groups: treatment of a group in which no reward distinguishes the completions. "keep" trains on it,
            "drop" leaves it out, "redraw" replaces it by a group of the next prompt.
        redraws: how often a round redraws its dead groups. Those that are still dead at the end are kept.
        oversample: prompts that a round draws at first, as a multiple of those that it trains on, so that fewer groups
            have to be redrawn. Groups that are not needed are counted as over budget.
        truncated: "train" on completions that reached max_new_tokens, or "mask" them.
        abstained: "error" to raise an error for a completion that no reward scores, "mask" to leave it out.
        max_staleness: mask completions with a token from weights that are more versions behind than this.
        reward_timeout: seconds after which a call of a reward function fails.
        reward_workers: processes that reward functions run in.
        old_logps: score the completions with the policy before the first step of a round, for the ratio of a clipped
            loss: `batch.columns["old_logps"]` [N].
        generator: the name of what generates. "policy" is the policy itself, in this process.
        sequences_per_chunk: completions that are generated together and then written to the run folder, so that a run
            that is killed generates at most this many again.
    """

    completions: int
    max_new_tokens: int
    rewards: Sequence[Reward | str] = ()
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    stop: tuple[str, ...] = ()
    minibatches: int = 1
    iterations: int = 1
    dead_groups: Literal["keep", "drop", "redraw"] = "keep"
    redraws: int = 2
    oversample: float = 1.0
    truncated: Literal["train", "mask"] = "train"
    abstained: Literal["error", "mask"] = "error"
    max_staleness: int | None = None
    reward_timeout: float = 60.0
    reward_workers: int = 1
    old_logps: bool = False
    generator: str = "policy"
    sequences_per_chunk: int = 64

    def __post_init__(self) -> None:
        for name in (
            "completions", "max_new_tokens", "minibatches", "iterations", "sequences_per_chunk", "oversample",
            "reward_workers",
        ):  # fmt: skip
            if getattr(self, name) < 1:
                raise PluginError(f"Rollout({name}={getattr(self, name)}): must be at least 1", code="plugin-shape")
        labels = [reward.label for reward in self.scored]
        if twice := sorted({label for label in labels if labels.count(label) > 1}):
            help = "give one of them another label: {name: ..., label: ...}"
            raise PluginError(f"two rewards have the label {twice[0]!r}", help=help, code="plugin-shape")

    @property
    def scored(self) -> tuple[Reward, ...]:
        """The rewards, in order."""
        return tuple(Reward(reward) if isinstance(reward, str) else reward for reward in self.rewards)

    @property
    def steps(self) -> int:
        """Optimizer steps of a round."""
        return self.minibatches * self.iterations
