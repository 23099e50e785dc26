"""Keys that all online methods have: how completions are sampled, and what scores them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from pydantic import Field, PositiveFloat, PositiveInt

from tunesmith.plugins.plugin import Settings
from tunesmith.plugins.rollout import Reward, Rollout

if TYPE_CHECKING:
    from tunesmith.config.yamlfile import KeyPath
    from tunesmith.run import Run

Mistake: TypeAlias = "tuple[KeyPath | str, str, str]"
"""A key, what is wrong with its value, and what to write instead."""
BLOCK = "trl"
"""The group of keys of all online methods, as TRL and Axolotl name it."""
RESERVED = ("name", "weight", "label")


class RolloutSettings(Settings):
    """Keys of the block `trl:` that every online method reads. A method adds its own in a subclass."""

    num_generations: PositiveInt = 8
    """G: completions sampled for each prompt."""
    max_completion_length: PositiveInt = 256
    """Longest completion, in tokens. sequence_len is the limit of a prompt and a completion together."""
    temperature: float = Field(1.0, ge=0)
    """Temperature of sampling; 0 takes the likeliest token. Log-probabilities of the loss are at this temperature."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Sample from the smallest set of tokens with at least this probability."""
    top_k: int = Field(0, ge=0)
    """Sample from this many of the most likely tokens; 0 for all."""
    min_p: float | None = Field(None, ge=0, le=1)
    """Sample from the tokens with at least this share of the likeliest token's probability."""
    stop: list[str] | str = []
    """Strings that end a completion, in addition to the end tokens of the model."""
    reward_funcs: list[str] | str = []
    """Names of the rewards: those that plugins offer, or functions in a file: ./my_reward.py:score. `rewards:` names
    them with options."""
    reward_weights: list[float] | None = None
    """Factor of each reward of reward_funcs in their sum; 1 for each if not set."""
    reward_timeout: PositiveFloat = 60.0
    """Seconds after which a call of a reward function is an error."""
    reward_num_workers: PositiveInt = 1
    """Processes that run reward functions, for each training process."""
    abstained: Literal["error", "mask"] = "error"
    """Treatment of a completion that no reward scores (all return None): raise an error, or do not train on it."""
    num_iterations: PositiveInt = 1
    """μ: optimizer steps on each generated minibatch."""
    steps_per_generation: PositiveInt | None = None
    """Micro-batches of a process that are generated together; gradient_accumulation_steps if not set. With a multiple
    of that, several optimizer steps train on completions of the same weights."""
    generation_batch_size: PositiveInt | None = None
    """Completions that are generated together over all processes; another way to write steps_per_generation."""
    mask_truncated_completions: bool = False
    """Do not train on completions that reached max_completion_length without an end."""
    dead_groups: Literal["keep", "drop", "redraw"] = "keep"
    """Treatment of a group whose completions all have the same rewards, so that it has no signal: keep it, drop it, or
    redraw: replace it with a group for the next prompt (dynamic sampling, DAPO, arXiv 2503.14476)."""
    max_redraws: PositiveInt = 3
    """How often the dead groups of a round are redrawn. Those that are left are kept."""
    oversample: float = Field(1.0, ge=1)
    """Prompts that a round draws at first, as a multiple of those it needs; for dead_groups: drop or redraw."""


class OnlineSettings(Settings):
    """Keys of online methods beside the block `trl:`. Declare `Plugin(shared=("rewards",))`."""

    rewards: list[str | dict[str, Any]] = []
    """Rewards that score completions: a list of names, or of {name, weight, label, and the reward's options}."""


def rewards_of(settings: OnlineSettings, block: RolloutSettings) -> tuple[Reward, ...]:
    """Return the rewards that the YAML names, from `rewards:` and from `trl.reward_funcs`."""
    names = [block.reward_funcs] if isinstance(block.reward_funcs, str) else block.reward_funcs
    weights = block.reward_weights if block.reward_weights and len(block.reward_weights) == len(names) else None
    rewards = [
        Reward(name, weights[i] if weights else 1.0, key=(BLOCK, "reward_funcs", i)) for i, name in enumerate(names)
    ]
    for i, entry in enumerate(settings.rewards):
        values: dict[str, Any] = {"name": entry} if isinstance(entry, str) else dict(entry)
        options = {name: value for name, value in values.items() if name not in RESERVED}
        named = {name: values[name] for name in RESERVED if name in values}
        rewards.append(Reward(**named, options=options, key=("rewards", i)))
    return tuple(rewards)


def rollout_of(run: Run, settings: OnlineSettings, block: RolloutSettings, **more: Any) -> Rollout:
    """Return the rollout that the keys describe. `more`: further arguments of Rollout, or others than these."""
    minibatches = max(1, micro_batches(run, block) // run.core.gradient_accumulation_steps)
    values: dict[str, Any] = {
        "completions": block.num_generations,
        "max_new_tokens": block.max_completion_length,
        "rewards": rewards_of(settings, block),
        "temperature": block.temperature,
        "top_p": block.top_p,
        "top_k": block.top_k,
        "min_p": block.min_p or 0.0,
        "stop": (block.stop,) if isinstance(block.stop, str) else tuple(block.stop),
        "minibatches": minibatches,
        "iterations": block.num_iterations,
        "dead_groups": block.dead_groups,
        "redraws": block.max_redraws,
        "oversample": block.oversample,
        "truncated": "mask" if block.mask_truncated_completions else "train",
        "abstained": block.abstained,
        "reward_timeout": block.reward_timeout,
        "reward_workers": block.reward_num_workers,
        "old_logps": minibatches * block.num_iterations > 1,
    }
    return Rollout(**(values | more))


def micro_batches(run: Run, block: RolloutSettings) -> int:
    """Return the micro-batches of a process that are generated together."""
    if block.generation_batch_size is not None:
        return max(1, block.generation_batch_size // (run.core.micro_batch_size * processes()))
    return block.steps_per_generation or run.core.gradient_accumulation_steps


def processes() -> int:
    """Return the number of processes of the run, which the launcher sets; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE") or 1)


def check_online(run: Run, settings: OnlineSettings, block: RolloutSettings, further: Iterable[Mistake] = ()) -> None:
    """Raise all mistakes in the keys of an online method together, with `further` ones of its own keys.

    Call it in validate.
    """
    mistakes = [*_in_rewards(settings, block), *_in_sizes(run, block), *_in_sampling(block), *further]
    with run.config.checking() as wrong:
        for mistake in mistakes:
            wrong(*mistake)


def _in_rewards(settings: OnlineSettings, block: RolloutSettings) -> Iterator[Mistake]:
    names = [block.reward_funcs] if isinstance(block.reward_funcs, str) else block.reward_funcs
    if not names and not settings.rewards:
        help = "write rewards: [exact_match], or a function of your own: rewards: [./my_reward.py:score]; "
        yield "rewards", "is not set, so nothing scores completions", help + "tunesmith rewards list names all"
    if names and settings.rewards:
        yield "rewards", "and trl.reward_funcs are both set", "write all rewards in one of them"
        return
    weights = block.reward_weights
    if weights is not None and len(weights) != len(names):
        message = f"must have one number for each reward of reward_funcs: expected {len(names)}, got {len(weights)}"
        yield (BLOCK, "reward_weights"), message, "write one number for each, or {name: ..., weight: ...} in rewards"
    labels: list[str] = []
    for i, entry in enumerate(settings.rewards):
        if isinstance(entry, dict) and (problem := _why_wrong(entry)):
            yield ("rewards", i), *problem
            return
    for reward in rewards_of(settings, block):
        if reward.label in labels:
            help = "give one of them another label: {name: ..., label: ...}"
            yield reward.key, f"has the label of an earlier reward: {reward.label}", help
        labels.append(reward.label)


def _why_wrong(entry: dict[str, Any]) -> tuple[str, str] | None:
    if not isinstance(entry.get("name"), str):
        return "has no name", "write {name: ..., weight: 1.0, and its options}"
    weight = entry.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float):
        return f"has a weight that is not a number: {weight!r}", "write weight: 1.0"
    if not isinstance(entry.get("label", ""), str):
        return f"has a label that is not a text: {entry['label']!r}", "write label: a_name"
    return None


def _in_sizes(run: Run, block: RolloutSettings) -> Iterator[Mistake]:
    core, group = run.core, block.num_generations
    accumulated = core.gradient_accumulation_steps
    if block.generation_batch_size is not None and block.steps_per_generation is not None:
        yield (BLOCK, "generation_batch_size"), "and steps_per_generation are both set", "drop one of them"
        return
    together = core.micro_batch_size * processes()
    if block.generation_batch_size is not None and block.generation_batch_size % together:
        message = f"is not a multiple of micro_batch_size x processes, which is {together}"
        rounded = together * -(-block.generation_batch_size // together)
        yield (BLOCK, "generation_batch_size"), message, f"write generation_batch_size: {rounded}"
        return
    key = "generation_batch_size" if block.generation_batch_size else "steps_per_generation"
    together = micro_batches(run, block)
    if together > accumulated and together % accumulated:
        message = f"gives {together} micro-batches, which is not a multiple of gradient_accumulation_steps"
        yield (BLOCK, key), f"{message} {accumulated}", f"write steps_per_generation: {accumulated}"
        return
    size, number = core.micro_batch_size, processes()
    completions = size * max(together, accumulated) * number
    if completions % group:
        message = f"{group} does not divide the {completions} completions that are generated together: "
        message += f"micro_batch_size {size} x {max(together, accumulated)} micro-batches x {number} processes"
        help = (
            f"write micro_batch_size: {group * -(-size // group)}, or num_generations: {_divisor(completions, group)}"
        )
        yield (BLOCK, "num_generations"), message, help
    if block.max_completion_length >= core.sequence_len:
        message = f"is not less than sequence_len {core.sequence_len}, so there is no room for a prompt"
        yield (BLOCK, "max_completion_length"), message, f"write sequence_len: {2 * block.max_completion_length}"


def _divisor(number: int, near: int) -> int:
    """Return the divisor of a number, at least 2 if there is one, that is nearest to another number."""
    divisors = [d for d in range(2, number + 1) if number % d == 0] or [1]
    return min(divisors, key=lambda d: abs(d - near))


def _in_sampling(block: RolloutSettings) -> Iterator[Mistake]:
    if block.temperature == 0 and block.num_generations > 1:
        message = "is 0, so all completions of a prompt would be equal"
        yield (BLOCK, "temperature"), message, "write temperature: 1.0"
    if block.oversample > 1 and block.dead_groups == "keep":
        message = "draws groups that nothing needs with dead_groups: keep"
        yield (BLOCK, "oversample"), message, "write dead_groups: redraw, or drop it"
    if "max_redraws" in block.model_fields_set and block.dead_groups != "redraw":
        yield (
            (BLOCK, "max_redraws"),
            f"has no effect with dead_groups: {block.dead_groups}",
            "write dead_groups: redraw",
        )
