"""Run the sequences of a pack as a right-padded batch, for models that do not support a TreeMask.

Recurrent layers read a pack from start to end, whatever the attention mask is. Chunked attention and ALiBi get their
positions from transformers. In the padded batch each sequence is a line, so examples can't see each other, and
positions, windows and chunks are those of transformers. These layers are causal, so padding on the right changes no
state before it. The mask is passed anyway, for models that look ahead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from tunesmith import Run, TreeMask

SUPPORTED_LAYERS = {"full_attention", "sliding_attention"}
"""Types of layers in which the engine's attention separates the sequences of a pack."""
MAX_OPERATIONS = 20_000
"""Limit on the operations of one forward in `plan`. A token-by-token scan has millions, and a thousand take seconds."""


@dataclass(frozen=True)
class Unsupported:
    """The reason why a model does not support a TreeMask. `mixes`: its layers mix tokens that a mask separates."""

    reason: str
    mixes: bool


def why_unsupported(model: nn.Module, config: Any) -> Unsupported | None:
    """Return the reason why a model does not support a TreeMask, or None if it does."""
    name = type(model).__name__
    foreign = set(getattr(config, "layer_types", None) or ()) - SUPPORTED_LAYERS
    if foreign or getattr(model, "_is_stateful", False):
        return Unsupported(f"{name} has {', '.join(sorted(foreign)) or 'recurrent'} layers", mixes=True)
    if not getattr(model, "_supports_attention_backend", False):
        return Unsupported(f"{name} has attention of its own", mixes=False)
    return None


@dataclass(frozen=True)
class Lines:
    """S sequences of up to L tokens: each branch of a pack, after the branches that it continues.

    index [S, L]: the index in the pack of each token. mask [S, L]: True for tokens, False for padding. places [T]: the
    index in [S * L] at which the state of each token of the pack is computed. tokens: the number of True in mask.
    """

    index: Tensor
    mask: Tensor
    places: Tensor
    tokens: int

    @property
    def attention_mask(self) -> Tensor | None:
        """The mask as transformers expects it, or None if there is no padding, which is faster."""
        return self.mask.long() if self.tokens < self.mask.numel() else None

    def spread(self, values: Tensor) -> Tensor:
        """Arrange values [T] of a pack's tokens as [S, L], with zeros for padding."""
        return values[self.index].masked_fill(~self.mask, 0)

    def gather(self, states: Tensor) -> Tensor:
        """Return states [S, L, H] or [S * L, H] in the order of the pack: [T, H]."""
        return flatten(states)[self.places]


def flatten(states: Tensor) -> Tensor:
    """Reshape states [1, T, H] or [T, H] to [T, H]."""
    return states.reshape(-1, states.shape[-1])


class PaddingCount:
    """A counter of the share of padding in what is computed, shown as a note of the run."""

    def __init__(self, run: Run):
        self.run = run
        self.tokens = self.computed = 0

    def add(self, lines: Lines) -> None:
        self.tokens += lines.tokens
        self.computed += lines.mask.numel()
        share = 1 - self.tokens / max(self.computed, 1)
        self.run.note("padding inside the model", f"{share:.0%} of the computed positions")


class OperationLimit(TorchFunctionMode):
    """A mode in which a forward on the meta device raises RuntimeError after MAX_OPERATIONS operations."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        if self.count > MAX_OPERATIONS:
            raise RuntimeError(f"more than {MAX_OPERATIONS:,} operations in a forward: the layers run token by token")
        return func(*args, **(kwargs or {}))


def lines(tree_mask: TreeMask) -> Lines:
    """Return the lines of a pack, built once per pack. A prompt that its branches share is repeated in each line."""

    def build() -> Lines:
        parts: list[tuple[Tensor, int]] = []  # per line: indices in the pack, and how many are of other branches
        for part in tree_mask.slices():
            start, n = tree_mask.start[part.index], tree_mask.lengths[part.index]
            before = [torch.arange(tree_mask.start[b], tree_mask.start[b] + count) for b, count in part.before]
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

    return tree_mask.cached("lines", build)
