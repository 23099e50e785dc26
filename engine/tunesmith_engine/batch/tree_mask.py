"""Which token sees which in a row of packed trees.

A row consists of branches: stretches in which each token sees those before it. A token of branch q at position p sees
of another branch k the tokens at positions below sees[q, k] (0: nothing), and of its own branch those up to itself.
That one table isolates packed examples, shares prompts and lets branches fork anywhere; a sliding window is counted
in positions, never in places of the row.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

EVERYTHING = 2**30
T = TypeVar("T")


@dataclass
class TreeMask:
    """The branches of a row of T tokens: start [R] in the row, first position [R], and what each sees of others."""

    start: list[int]
    first: list[int]
    sees: list[dict[int, int]]
    length: int
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    cache: dict[Any, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def build(cls, branches: list[tuple[int, int]], sees: list[dict[int, int]], length: int) -> TreeMask:
        return cls([s for s, _ in branches], [p for _, p in branches], sees, length)

    def to(self, device: torch.device | str) -> TreeMask:
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
        return any(self.sees)

    def branch(self) -> Tensor:
        """Branch of each token [T]."""

        def make() -> Tensor:
            return torch.repeat_interleave(torch.tensor(self.lengths), output_size=self.length).to(self.device)

        return self.cached("branch", make)

    def positions(self) -> Tensor:
        """Position of each token [T]."""
        parts = [torch.arange(p, p + n) for p, n in zip(self.first, self.lengths, strict=True)]
        return self.cached("positions", lambda: torch.cat(parts or [torch.zeros(0, dtype=torch.long)]).to(self.device))

    def table(self) -> Tensor:
        """sees [R, R]: positions of branch k below which a token of branch q sees it; the diagonal is unbounded."""

        def make() -> Tensor:
            table = torch.diag(torch.full((len(self.start),), EVERYTHING, dtype=torch.int32))
            for q, seen in enumerate(self.sees):
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

    def cached(self, key: Any, make: Callable[[], T]) -> T:
        """Make a thing once for this row and device."""
        if key not in self.cache:
            self.cache[key] = make()
        made: T = self.cache[key]
        return made

    def slices(self, window: int | None = None) -> list[Slice]:
        """The row cut into branches with what each sees: one call of attention for each."""
        return self.cached(("slices", window), lambda: [self._slice(r, window) for r in range(len(self.start))])

    def _slice(self, r: int, window: int | None) -> Slice:
        n, first = self.lengths[r], self.first[r]
        before: list[tuple[int, int]] = []
        keys: list[Tensor] = []
        for k, limit in sorted(self.sees[r].items()):
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
    """Branch `index` sees the first tokens of the branches in `before`, then itself: causally, or by mask [n, m]."""

    index: int
    before: list[tuple[int, int]]
    mask: Tensor | None
