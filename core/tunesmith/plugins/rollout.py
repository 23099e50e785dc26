"""Declare how a method generates the completions that it trains on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tunesmith.errors import PluginError


@dataclass(frozen=True)
class Rollout:
    """The rounds of a method that trains on generated completions (an online method).

    A round draws `minibatches` times the prompts of an optimizer step (micro_batch_size x gradient_accumulation_steps x
    processes), samples `completions` for each prompt, scores them, and trains on each minibatch `iterations` times, so
    it takes minibatches x iterations optimizer steps.

    Args:
        completions: sampled for each prompt; together they are a group.
        max_new_tokens: longest completion.
        rewards: names of rewards, each answered by score_rewards or offered by a plugin.
        rewards_key: the key of the YAML that names the rewards, for errors.
        reward_weights: a factor for each reward in the sum; 1 by default.
        temperature, top_p, top_k: how tokens are drawn.
        stop: strings that end a completion.
        minibatches: optimizer steps of a pass over the round.
        iterations: passes over the round.
        dead_groups: what becomes of a group in which no reward distinguishes the completions. "keep" trains on it,
            "drop" leaves it out, "redraw" replaces it by a group of the next prompt.
        redraws: how often a round redraws its dead groups. Those that are still dead at the end are kept.
        old_logps: score the completions with the policy before the first step of a round, for the ratio of a clipped
            loss: `batch.columns["old_logps"]` [N].
        generator: the name of what generates. "policy" is the policy itself, in this process.
        sequences_per_chunk: completions that are generated together and then written to the run folder, so that a run
            that is killed generates at most this many again.
    """

    completions: int
    max_new_tokens: int
    rewards: Sequence[str] = ()
    reward_weights: Sequence[float] = ()
    rewards_key: str | tuple[str, ...] = "rl"
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    stop: tuple[str, ...] = ()
    minibatches: int = 1
    iterations: int = 1
    dead_groups: Literal["keep", "drop", "redraw"] = "keep"
    redraws: int = 2
    old_logps: bool = False
    generator: str = "policy"
    sequences_per_chunk: int = 64

    def __post_init__(self) -> None:
        for name in ("completions", "max_new_tokens", "minibatches", "iterations", "sequences_per_chunk"):
            if getattr(self, name) < 1:
                raise PluginError(f"Rollout({name}={getattr(self, name)}): must be at least 1", code="plugin-shape")
        if self.reward_weights and len(self.reward_weights) != len(self.rewards):
            message = f"Rollout has {len(self.rewards)} rewards and {len(self.reward_weights)} reward_weights"
            raise PluginError(message, help="give each reward a weight, or none", code="plugin-shape")

    @property
    def steps(self) -> int:
        """Optimizer steps of a round."""
        return self.minibatches * self.iterations
