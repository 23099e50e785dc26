"""Split the completions of a round into optimizer steps, and these into micro-batches of about equal length."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby

from tunesmith.errors import ConfigError
from tunesmith.plugins.rollout import Rollout
from tunesmith.run import Run
from tunesmith_engine.batch.examples import Example
from tunesmith_engine.data.batches import Packs
from tunesmith_engine.rounds.groups import Group


def completions_per_step(run: Run) -> int:
    """Return the completions that an optimizer step trains on, over all processes."""
    core = run.core
    return core.micro_batch_size * core.gradient_accumulation_steps * run.world.data.size


def prompts_per_round(run: Run, spec: Rollout) -> int:
    """Return the prompts of a round. Raises ConfigError if its completions are not a multiple of those of a prompt."""
    completions = completions_per_step(run) * spec.minibatches
    if completions % spec.completions:
        raise _not_divisible(run, spec, completions)
    return completions // spec.completions


def _not_divisible(run: Run, spec: Rollout, completions: int) -> ConfigError:
    core, n = run.core, spec.completions
    message = f"{completions} completions of a round are not a multiple of {n} completions for each prompt: "
    message += f"micro_batch_size {core.micro_batch_size} x gradient_accumulation_steps "
    message += f"{core.gradient_accumulation_steps} x {run.world.data.size} processes x {spec.minibatches} steps"
    rest = core.micro_batch_size * run.world.data.size * spec.minibatches
    needed = n // math.gcd(n, rest)
    steps = math.ceil(core.gradient_accumulation_steps / needed) * needed
    help = f"write gradient_accumulation_steps: {steps}, or micro_batch_size: {n}"
    return run.config.error("micro_batch_size", message, help)


def split(run: Run, spec: Rollout, groups: Sequence[Group], dropped: Sequence[bool]) -> list[Packs]:
    """Return the micro-batches of each optimizer step, each as one pack of examples.

    A step trains on the next `completions_per_step` completions, so a group may be split between two steps. A
    micro-batch has at most micro_batch_size completions. Those of a group are one example as far as that is possible,
    because they share its prompt. Dropped groups leave their places empty.
    """
    order = [(g, k) for g, group in enumerate(groups) for k in range(len(group.completions))]
    size = completions_per_step(run)
    steps = []
    for start in range(0, len(order), size):
        part = [(g, k) for g, k in order[start : start + size] if not dropped[g]]
        steps.append(micro_batches_of(groups, part, run.core.micro_batch_size))
    return steps


def micro_batches_of(groups: Sequence[Group], part: Sequence[tuple[int, int]], size: int) -> Packs:
    """Return micro-batches of the completions (group, number), each of at most `size` of them.

    The longest pieces are placed first, each in the shortest micro-batch with room, and the longest micro-batches come
    first, so that processes, which take them in turn, have about equally many tokens.
    """
    pieces: list[tuple[Example, int]] = []
    for g, members in groupby(part, lambda item: item[0]):
        numbers = [k for _, k in members]
        for start in range(0, len(numbers), size):
            own = numbers[start : start + size]
            pieces.append((groups[g].example(own), len(own)))
    bins: list[list[tuple[Example, int]]] = [[] for _ in range(math.ceil(len(part) / size))]
    for piece in sorted(pieces, key=lambda item: -item[0].width):
        fitting = [one for one in bins if sum(n for _, n in one) + piece[1] <= size]
        if not fitting:
            bins.append([])
            fitting = bins[-1:]
        min(fitting, key=_tokens).append(piece)
    filled = sorted((one for one in bins if one), key=_tokens, reverse=True)
    return [[example for example, _ in one] for one in filled]


def _tokens(pieces: Sequence[tuple[Example, int]]) -> int:
    return sum(example.width for example, _ in pieces)
