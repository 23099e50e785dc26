"""Continue sequences with cached keys and values, in which a prompt is kept once for all of its completions.

The prompts run as a pack, like the examples of training. Then each completion is a batch row of one token, which
attends to the keys of its prompt, shared with the other rows of that prompt, and to its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers.cache_utils import LinearAttentionCacheLayerMixin

from tunesmith import Decoder, Example, collate, segment

ROOM = 64
"""Tokens by which the cache of the completions grows."""


@dataclass(frozen=True)
class Model:
    """The body of a model, as decoders call it: `run(input_ids, **options)` returns its output.

    backend: the engine's attention for the pack of prompts. recurrent: the model has states in addition to keys.
    """

    run: Callable[..., Any]
    backend: str
    device: torch.device
    recurrent: bool


@dataclass
class Layer:
    """The keys and values of a layer: of the prompts [P, K, L, D], and of the rows [B, K, room, D]."""

    prompt_keys: Tensor
    prompt_values: Tensor
    keys: Tensor
    values: Tensor


class SharedCache:
    """The keys and values of all layers for P prompts and the B rows that continue them.

    lengths: [P], of the prompts. owner: [B], the prompt of each row, in ascending order. drawn: tokens of each row.
    """

    def __init__(self, lengths: list[int], owner: list[int], device: torch.device):
        self.layers: dict[nn.Module, Layer] = {}
        self.drawn = -1  # while the prompts run
        self.lengths = torch.tensor(lengths, device=device)
        self.longest, self.ragged = max(lengths), min(lengths) < max(lengths)
        # The place in the pack of each token of each prompt, [P, L]. Padding repeats the first token, and is masked.
        token = torch.arange(self.longest, device=device)
        start = self.lengths.cumsum(0) - self.lengths
        self.places = start[:, None] + token * (token < self.lengths[:, None])
        self.arrange(torch.tensor(owner, device=device))

    def arrange(self, owner: Tensor) -> None:
        """Arrange the rows in a grid [P, G] by prompt, whose spare cells have row 0."""
        counts = torch.bincount(owner, minlength=len(self.lengths))
        self.owner, self.width = owner, int(counts.max())
        rows = torch.arange(len(owner), device=owner.device)
        self.cell = owner * self.width + rows - (counts.cumsum(0) - counts)[owner]
        self.grid = torch.zeros(len(counts) * self.width, dtype=torch.long, device=owner.device)
        self.grid[self.cell] = rows
        self.full = len(self.grid) == len(owner)
        self.hidden: dict[int | None, Tensor | None] = {}

    def keep(self, rows: Tensor) -> None:
        """Drop all other rows, and prompts without rows."""
        used, owner = torch.unique(self.owner[rows], return_inverse=True)
        for layer in self.layers.values():
            layer.keys, layer.values = layer.keys[rows], layer.values[rows]
            if len(used) < len(self.lengths):
                layer.prompt_keys, layer.prompt_values = layer.prompt_keys[used], layer.prompt_values[used]
        self.lengths = self.lengths[used]
        self.arrange(owner)

    def advance(self) -> None:
        """Count the token that all layers have added."""
        self.drawn += 1
        self.hidden = {}

    def store(self, module: nn.Module, key: Tensor, value: Tensor) -> None:
        """Store the keys and values of the pack of prompts, [1, K, T, D]."""
        keys, values = (x[0][:, self.places].transpose(0, 1).contiguous() for x in (key, value))
        rows = len(self.owner)
        room = [x.new_empty(rows, x.shape[1], 0, x.shape[3]) for x in (key, value)]
        self.layers[module] = Layer(keys, values, *room)

    def add(self, module: nn.Module, key: Tensor, value: Tensor) -> Layer:
        """Add the keys and values of one token for each row, [B, K, 1, D]."""
        layer = self.layers[module]
        if self.drawn == layer.keys.shape[2]:
            layer.keys, layer.values = (
                torch.cat([x, x.new_empty(*x.shape[:2], ROOM, x.shape[3])], 2) for x in (layer.keys, layer.values)
            )
        layer.keys[:, :, self.drawn], layer.values[:, :, self.drawn] = key[:, :, 0], value[:, :, 0]
        return layer

    def mask(self, window: int | None) -> Tensor | None:
        """Return which keys the rows of a prompt do not see, [P, 1, 1, L + own], or None if they see all of them."""
        if window is not None and self.longest + self.drawn < window:
            window = None
        if window is None and not self.ragged:
            return None
        if window not in self.hidden:
            token = torch.arange(self.longest, device=self.lengths.device)
            own = torch.arange(self.drawn + 1, device=self.lengths.device)
            position = torch.cat([token.expand(len(self.lengths), -1), self.lengths[:, None] + own], 1)
            hidden = torch.cat([token >= self.lengths[:, None], own.expand(len(self.lengths), -1) < 0], 1)
            if window is not None:
                hidden |= (self.lengths + self.drawn)[:, None] - position >= window
            self.hidden[window] = hidden[:, None, None]
        return self.hidden[window]

    def attend(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scale: float | None = None,
        window: int | None = None,
        softcap: float | None = None,
        sinks: Tensor | None = None,
    ) -> Tensor:
        """Compute the attention of one token for each row: query [B, H, 1, D] -> [B, 1, H, D].

        In the grid, the queries of a prompt are one matrix, so its keys and values are read once for all of its rows.
        """
        layer, prompts, own = self.add(module, key, value), len(self.lengths), self.drawn + 1
        rows, heads, _, size = query.shape
        groups, repeat = key.shape[1], heads // key.shape[1]

        def to_grid(x: Tensor) -> Tensor:
            """Arrange values [B, K, R, X] as [P, K, G * R, X]."""
            x = x if self.full else x[self.grid]
            return x.view(prompts, self.width, groups, repeat, -1).transpose(1, 2).flatten(2, 3)

        def to_rows(x: Tensor) -> Tensor:
            """Arrange values [P, K, G * R, X] as [B, K, R, X]."""
            x = x.view(prompts, groups, self.width, repeat, -1).transpose(1, 2).flatten(0, 1)
            return x if self.full else x[self.cell]

        q = query.reshape(rows, groups, repeat, size) * (size**-0.5 if scale is None else scale)
        scores = torch.cat(
            [
                to_grid(q) @ layer.prompt_keys.transpose(2, 3),
                to_grid(q @ layer.keys[:, :, :own].transpose(2, 3)),
            ],
            -1,
        )
        if softcap is not None:
            scores = torch.tanh(scores / softcap) * softcap
        if (hidden := self.mask(window)) is not None:
            scores.masked_fill_(hidden, float("-inf"))
        if sinks is not None:
            column = sinks.view(1, groups, 1, repeat, 1).expand(prompts, -1, self.width, -1, -1).flatten(2, 3)
            scores = torch.cat([scores, column.to(scores.dtype)], -1)
        weights = scores.softmax(-1, dtype=torch.float32).to(value.dtype)
        prompt_weights, own_weights = weights[..., : self.longest], weights[..., self.longest : self.longest + own]
        out = to_rows(prompt_weights @ layer.prompt_values) + to_rows(own_weights) @ layer.values[:, :, :own]
        return out.reshape(rows, 1, heads, -1)


class SharedDecoder(Decoder):
    """A decoder with a SharedCache, for models that support a TreeMask."""

    def __init__(self, model: Model, prompts: Sequence[Sequence[int]], copies: Sequence[int]):
        self.model = model
        self.batch = collate([Example([segment([]), segment(prompt)]) for prompt in prompts]).to(model.device)
        owner = [p for p, count in enumerate(copies) for _ in range(count)]
        self.cache = SharedCache([len(prompt) for prompt in prompts], owner, model.device)

    def prefill(self) -> Tensor:
        batch = self.batch
        options = {"tree_mask": batch.tree_mask, "backend": self.model.backend, "cache": self.cache}
        out = self.model.run(batch.input_ids, position_ids=batch.position_ids, use_cache=False, **options)
        self.cache.advance()
        last = self.cache.lengths.cumsum(0) - 1
        return out.last_hidden_state.flatten(0, -2)[last[self.cache.owner]]  # type: ignore[no-any-return]

    def next(self, tokens: Tensor) -> Tensor:
        positions = self.cache.lengths[self.cache.owner] + self.cache.drawn
        out = self.model.run(tokens[:, None], position_ids=positions[:, None], use_cache=False, cache=self.cache)
        self.cache.advance()
        return out.last_hidden_state.flatten(0, -2)  # type: ignore[no-any-return]

    def keep(self, rows: Tensor) -> None:
        self.cache.keep(rows)


class RepeatingDecoder(Decoder):
    """A decoder with the cache of transformers, in which each row has the keys and states of its prompt.

    All prompts have the same length: padding would change recurrent states, and the positions of other models. If the
    model does not return all of its state, in a cache whose rows can be selected, the decoder `fallback()` is used.
    """

    def __init__(
        self,
        model: Model,
        prompts: Sequence[Sequence[int]],
        copies: Sequence[int],
        fallback: Callable[[], Decoder],
    ):
        self.model, self.fallback = model, fallback
        self.ids = torch.tensor([list(prompt) for prompt in prompts], device=model.device)
        self.owner = torch.repeat_interleave(torch.tensor(copies)).to(model.device)
        self.cache: dict[str, transformers.Cache] = {}
        self.instead: Decoder | None = None

    def prefill(self) -> Tensor:
        out = self.model.run(self.ids, use_cache=True)
        self.cache = {name: out[name] for name in ("past_key_values", "cache_params") if out.get(name) is not None}
        if not self.cache or not all(map(self.is_complete, self.cache.values())):
            self.instead = self.fallback()
            return self.instead.prefill()
        self.keep(self.owner)
        return out.last_hidden_state[self.owner, -1]  # type: ignore[no-any-return]

    def is_complete(self, cache: Any) -> bool:
        """Return True if a cache contains all state of the model. RecurrentGemma keeps some of it in its modules."""
        if not isinstance(cache, transformers.Cache):
            return False
        return not self.model.recurrent or any(isinstance(x, LinearAttentionCacheLayerMixin) for x in cache.layers)

    def next(self, tokens: Tensor) -> Tensor:
        if self.instead is not None:
            return self.instead.next(tokens)
        out = self.model.run(tokens[:, None], use_cache=True, **self.cache)
        return out.last_hidden_state[:, -1]  # type: ignore[no-any-return]

    def keep(self, rows: Tensor) -> None:
        if self.instead is not None:
            self.instead.keep(rows)
        for cache in self.cache.values() if self.instead is None else ():
            cache.reorder_cache(rows)


def end_tokens(model: nn.Module) -> frozenset[int]:
    """Return the ids that generation_config.json names as ends, such as the end of a turn next to the end of a text.

    A config that transformers derives from config.json does not count: its end token is often a default.
    """
    config: Any = getattr(model, "generation_config", None)
    if config is None or config._from_model_config:
        return frozenset()
    ids = config.eos_token_id
    return frozenset([ids] if isinstance(ids, int) else ids or ())
