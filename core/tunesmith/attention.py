"""Which token sees which in a row of packed trees, and attention computed by it.

A row consists of branches: stretches in which each token sees those before it. A token of branch q at position p sees
of another branch k the tokens at positions below reach[q, k] (0: nothing), and of its own branch those up to itself.
That one table isolates packed examples, shares prompts and lets branches fork anywhere; a sliding window is counted
in positions, never in places of the row.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

EVERYTHING = 2**30


@dataclass
class Layout:
    """The branches of a row of T tokens: start [R] in the row, first position [R], and what each sees of others."""

    start: list[int]
    first: list[int]
    reach: list[dict[int, int]]
    length: int
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    cache: dict[Any, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def build(cls, branches: list[tuple[int, int]], reach: list[dict[int, int]], length: int) -> Layout:
        return cls([s for s, _ in branches], [p for _, p in branches], reach, length)

    def to(self, device: torch.device | str) -> Layout:
        self.device = torch.device(device)
        self.cache.clear()
        return self

    @functools.cached_property
    def lengths(self) -> list[int]:
        """Tokens of each branch [R]."""
        return [b - a for a, b in zip(self.start, [*self.start[1:], self.length], strict=True)]

    @property
    def forked(self) -> bool:
        """Whether some branch sees another: what plain packing kernels can't do."""
        return any(self.reach)

    def branch(self) -> Tensor:
        """Branch of each token [T]."""
        return self.cached("branch", lambda: torch.repeat_interleave(torch.tensor(self.lengths)).to(self.device))

    def positions(self) -> Tensor:
        """Position of each token [T]."""
        parts = [torch.arange(p, p + n) for p, n in zip(self.first, self.lengths, strict=True)]
        return self.cached("positions", lambda: torch.cat(parts or [torch.zeros(0, dtype=torch.long)]).to(self.device))

    def table(self) -> Tensor:
        """reach [R, R]: positions of branch k below which a token of branch q sees it; the diagonal is unbounded."""

        def make() -> Tensor:
            table = torch.diag(torch.full((len(self.start),), EVERYTHING, dtype=torch.int32))
            for q, seen in enumerate(self.reach):
                for k, limit in seen.items():
                    table[q, k] = limit
            return table.to(self.device)

        return self.cached("table", make)

    def visible(self, window: int | None = None) -> Tensor:
        """The whole mask [T, T] as booleans, row sees column. For short rows, fallbacks and tests."""

        def make() -> Tensor:
            branch, position = self.branch(), self.positions()
            own = branch[:, None] == branch[None, :]
            causal = position[:, None] >= position[None, :]
            mask = (position[None, :] < self.table()[branch][:, branch]) & (causal | ~own)
            return mask if window is None else mask & (position[:, None] - position[None, :] < window)

        return self.cached(("visible", window), make)

    def cached(self, key: Any, make: Any) -> Any:
        if key not in self.cache:
            self.cache[key] = make()
        return self.cache[key]

    def slices(self, window: int | None = None) -> list[Slice]:
        """The row cut into branches with what each sees: one call of attention for each."""
        return self.cached(("slices", window), lambda: [self._slice(r, window) for r in range(len(self.start))])

    def _slice(self, r: int, window: int | None) -> Slice:
        n, first = self.lengths[r], self.first[r]
        before: list[tuple[int, int]] = []
        keys: list[Tensor] = []
        for k, limit in sorted(self.reach[r].items()):
            seen = min(self.lengths[k], limit - self.first[k])
            if seen > 0:
                before.append((k, seen))
                keys.append(torch.arange(self.first[k], self.first[k] + seen))
        if not before and (window is None or n <= window):
            return Slice(r, before, None)
        own = torch.arange(first, first + n)
        key = torch.cat([*keys, own])
        mask = own[:, None] >= key[None, :]
        if window is not None:
            mask &= own[:, None] - key[None, :] < window
        return Slice(r, before, mask.to(self.device))


@dataclass(frozen=True)
class Slice:
    """Branch `index` sees the first tokens of the branches in `before`, then itself: causally, or as mask [n, m] says."""

    index: int
    before: list[tuple[int, int]]
    mask: Tensor | None


def attend_slices(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: Layout,
    *,
    scale: float | None = None,
    window: int | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """Attention of a row, branch by branch: query [1, H, T, D], key and value [1, K, T, D] -> [1, H, T, D].

    Nothing of the size of the row squared is made. With soft-capped scores (Gemma 2) or attention sinks (gpt-oss),
    which sdpa does not know, each branch is computed in the open.
    """
    grouped = query.shape[1] != key.shape[1]
    lengths = layout.lengths
    queries, keys, values = query.split(lengths, 2), key.split(lengths, 2), value.split(lengths, 2)
    outputs = []
    for part in layout.slices(window):
        if not lengths[part.index]:
            outputs.append(queries[part.index])
            continue
        q, k, v = queries[part.index], keys[part.index], values[part.index]
        if part.before:
            k = torch.cat([*(keys[b][:, :, :n] for b, n in part.before), k], 2)
            v = torch.cat([*(values[b][:, :, :n] for b, n in part.before), v], 2)
        if softcap is None and sinks is None:
            causal = part.mask is None
            o = F.scaled_dot_product_attention(q, k, v, part.mask, dropout, causal, scale=scale, enable_gqa=grouped)
        else:
            o = _attend_openly(q, k, v, part.mask, scale, dropout, softcap, sinks)
        outputs.append(o)
    return torch.cat(outputs, 2)


def _attend_openly(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    scale: float | None,
    dropout: float,
    softcap: float | None,
    sinks: Tensor | None,
) -> Tensor:
    repeat = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1)
    scores = q @ k.transpose(2, 3) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if mask is None:
        mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril()
    scores = scores.masked_fill(~mask, float("-inf"))
    if sinks is not None:
        scores = torch.cat([scores, sinks.reshape(1, -1, 1, 1).expand(1, -1, q.shape[2], 1)], -1)
    weights = scores.softmax(-1, dtype=torch.float32).to(q.dtype)
    if sinks is not None:
        weights = weights[..., :-1]
    return F.dropout(weights, dropout) @ v


def attend_flex(
    query: Tensor, key: Tensor, value: Tensor, layout: Layout, *, scale: float | None = None, window: int | None = None
) -> Tensor:
    """The same on a GPU through flex_attention: the block mask reads branch and position of each token."""
    from torch.nn.attention.flex_attention import create_block_mask

    def make() -> Any:
        branch, position, table = layout.branch(), layout.positions(), layout.table()

        def sees(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
            causal = (position[q] >= position[k]) | (branch[q] != branch[k])
            seen = (position[k] < table[branch[q], branch[k]]) & causal
            return seen if window is None else seen & (position[q] - position[k] < window)

        return create_block_mask(sees, None, None, layout.length, layout.length, device=str(layout.device))

    mask = layout.cached(("flex", window), make)
    return _compiled_flex()(query, key, value, block_mask=mask, scale=scale, enable_gqa=query.shape[1] != key.shape[1])


@functools.cache
def _compiled_flex() -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=True)


def attend_varlen(
    query: Tensor, key: Tensor, value: Tensor, layout: Layout, *, scale: float | None = None, window: int | None = None
) -> Tensor:
    """The same on a GPU through torch's variable-length kernel: rows whose branches see only themselves."""
    from torch.nn.attention.varlen import varlen_attn

    def make() -> tuple[Tensor, int]:
        bounds = torch.tensor([*layout.start, layout.length], dtype=torch.int32, device=layout.device)
        return bounds, max(layout.lengths)

    bounds, longest = layout.cached("bounds", make)
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    span = (window - 1 if window else -1, 0)
    grouped = query.shape[1] != key.shape[1]
    out = varlen_attn(q, k, v, bounds, bounds, longest, longest, scale=scale, window_size=span, enable_gqa=grouped)
    return out.transpose(0, 1)[None]  # type: ignore[union-attr]
