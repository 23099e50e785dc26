"""A row's sequences side by side, as a right-padded batch: for models that can't be told a row's TreeMask.

Recurrent layers read a row from its start to its end, whatever attention is told; chunks and ALiBi are counted by the
library itself. Each sequence is a line of its own there, so examples are apart by construction, and positions, windows
and chunks are transformers' own. These layers are causal, so padding at the right changes no state before it; the mask
is given all the same, for models that look ahead.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from tunesmith import Run, TreeMask

KEPT_APART = {"full_attention", "sliding_attention"}
"""Kinds of layers that the engine's attention keeps apart in a row."""
OPERATIONS = 20_000
"""Of one forward that `plan` counts; a scan from token to token has millions, and a thousand take seconds in all."""


@dataclass(frozen=True)
class Demand:
    """Why a model can't be told a row's TreeMask; and whether its layers mix tokens by more than a mask says."""

    reason: str
    mixes: bool


def demanded(model: nn.Module, config: Any) -> Demand | None:
    """What keeps a model from packed rows as they are, if anything does."""
    name = type(model).__name__
    foreign = set(getattr(config, "layer_types", None) or ()) - KEPT_APART
    if foreign or getattr(model, "_is_stateful", False):
        return Demand(f"{name} has {', '.join(sorted(foreign)) or 'recurrent'} layers", mixes=True)
    if not getattr(model, "_supports_attention_backend", False):
        return Demand(f"{name} takes no attention from outside", mixes=False)
    return None


@dataclass(frozen=True)
class Lines:
    """S sequences of up to L tokens, one for each branch of a row, with what it follows.

    index [S, L]: the row's token that stands there; mask [S, L]: where one does; places [T]: where in [S * L] the state
    of each token of the row is computed. tokens: how many are not padding.
    """

    index: Tensor
    mask: Tensor
    places: Tensor
    tokens: int

    @property
    def attention_mask(self) -> Tensor | None:
        """The mask as the library takes it; none where nothing is padded, which is faster."""
        return self.mask.long() if self.tokens < self.mask.numel() else None

    def spread(self, row: Tensor) -> Tensor:
        """Values [T] of a row's tokens as [S, L]; zeros are the padding."""
        return row[self.index].masked_fill(~self.mask, 0)

    def gather(self, states: Tensor) -> Tensor:
        """States [S, L, H], or [S * L, H], in the row's order: [T, H]."""
        return flat(states)[self.places]


def flat(states: Tensor) -> Tensor:
    """States [1, T, H], or [T, H], as [T, H]."""
    return states.reshape(-1, states.shape[-1])


class Count:
    """How much of what was computed is padding: a note of the run."""

    def __init__(self, run: Run):
        self.run = run
        self.tokens = self.computed = 0

    def add(self, lines: Lines) -> None:
        self.tokens += lines.tokens
        self.computed += lines.mask.numel()
        share = 1 - self.tokens / max(self.computed, 1)
        self.run.note("sequences are padded inside", f"{share:.0%} of what the model computes is padding")


class Countable(TorchFunctionMode):
    """Within it, a forward without content gives up after OPERATIONS: RuntimeError."""

    def __init__(self) -> None:
        super().__init__()
        self.done = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.done += 1
        if self.done > OPERATIONS:
            raise RuntimeError(f"more than {OPERATIONS:,} operations in a forward: layers go from token to token")
        return func(*args, **(kwargs or {}))


def lines(tree_mask: TreeMask) -> Lines:
    """Where a row's sequences stand; made once for a row. A prompt that is shared in the row is repeated here."""

    def make() -> Lines:
        parts: list[tuple[Tensor, int]] = []  # of each line: the row's tokens, and how many of them belong to others
        for part in tree_mask.slices():
            start, n = tree_mask.start[part.index], tree_mask.lengths[part.index]
            before = [torch.arange(tree_mask.start[b], tree_mask.start[b] + seen) for b, seen in part.before]
            if n:
                parts.append((torch.cat([*before, torch.arange(start, start + n)]), sum(map(len, before))))
        longest = max((len(tokens) for tokens, _ in parts), default=0)
        index = torch.zeros(len(parts), longest, dtype=torch.long)
        mask = torch.zeros(len(parts), longest, dtype=torch.bool)
        places = torch.zeros(tree_mask.length, dtype=torch.long)
        for line, (tokens, others) in enumerate(parts):
            index[line, : len(tokens)], mask[line, : len(tokens)] = tokens, True
            places[tokens[others:]] = torch.arange(others, len(tokens)) + line * longest
        device = tree_mask.device
        return Lines(index.to(device), mask.to(device), places.to(device), sum(len(tokens) for tokens, _ in parts))

    return tree_mask.cached("lines", make)


def generate_alike(
    generate: Callable[[list[list[int]]], list[list[int]]], prompts: list[list[int]], one_by_one: bool
) -> list[list[int]]:
    """Generate for prompts of one length at a time: padding at the left is read by a recurrent layer.

    With `one_by_one` each prompt is a call, so that all processes make equally many.
    """
    groups: dict[int, list[int]] = defaultdict(list)
    for index, prompt in enumerate(prompts):
        groups[index if one_by_one else max(len(prompt), 1)].append(index)
    answers: dict[int, list[int]] = {}
    for indices in groups.values():
        answers |= zip(indices, generate([prompts[i] for i in indices]), strict=True)
    return [answers[index] for index in range(len(prompts))]
