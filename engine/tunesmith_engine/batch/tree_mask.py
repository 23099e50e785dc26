"""Describe which token sees which in a pack of trees.

A pack consists of branches: stretches in which each token sees those before it. A token of branch q sees the tokens of
another branch k at positions below sees[q, k] (0: none), and of its own branch those up to itself. This one table
isolates packed examples, shares prompts, and lets branches fork anywhere. A sliding window is counted in positions of
the sequence, never in places in the pack.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

EVERYTHING = 2**30
"""A limit above every position. It fits in int32."""
T = TypeVar("T")


@dataclass
class TreeMask:
    """The branches of a pack of T tokens.

    start: [R], the place of each branch in the pack. first: [R], its first position. sees: for each branch, the other
    branches that it sees, with the position below which it sees them. length: T.
    """

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
        """Build all tensors on a device from now on."""
        self.device = torch.device(device)
        self.cache.clear()
        return self

    @functools.cached_property
    def lengths(self) -> list[int]:
        """The number of tokens of each branch [R]."""
        return [b - a for a, b in zip(self.start, [*self.start[1:], self.length], strict=True)]

    @property
    def forked(self) -> bool:
        """True if a branch sees tokens of another one, which kernels for packed sequences do not support."""
        return any(self.lengths[k] and limit > self.first[k] for seen in self.sees for k, limit in seen.items())

    def cut(self, kept: list[int]) -> TreeMask:
        """Return the mask of the pack in which each branch r has only its first kept[r] tokens.

        Branches without tokens are left out, and the others are numbered anew.
        """
        numbers = [r for r, length in enumerate(kept) if length]
        new = {old: number for number, old in enumerate(numbers)}
        starts = [0, *itertools.accumulate(kept[r] for r in numbers)]
        sees = [{new[k]: limit for k, limit in self.sees[r].items() if k in new} for r in numbers]
        return TreeMask(starts[:-1], [self.first[r] for r in numbers], sees, starts[-1]).to(self.device)

    def branch(self) -> Tensor:
        """Return the branch of each token [T]."""

        def build() -> Tensor:
            return torch.repeat_interleave(torch.tensor(self.lengths), output_size=self.length).to(self.device)

        return self.cached("branch", build)

    def positions(self) -> Tensor:
        """Return the position of each token [T]."""
        parts = [torch.arange(p, p + n) for p, n in zip(self.first, self.lengths, strict=True)]
        return self.cached("positions", lambda: torch.cat(parts or [torch.zeros(0, dtype=torch.long)]).to(self.device))

    def table(self) -> Tensor:
        """Return `sees` as a table [R, R]: branch q sees branch k below position [q, k]. The diagonal has no limit."""

        def build() -> Tensor:
            table = torch.diag(torch.full((len(self.start),), EVERYTHING, dtype=torch.int32))
            for q, seen in enumerate(self.sees):
                for k, limit in seen.items():
                    table[q, k] = limit
            return table.to(self.device)

        return self.cached("table", build)

    def visible(self, window: int | None = None) -> Tensor:
        """Return the full mask [T, T] of booleans, in which the row sees the column.

        It is for short packs, fallbacks and tests: for 65,536 tokens it takes 4 GiB.
        """

        def build() -> Tensor:
            branch, position = self.branch(), self.positions()
            own = branch[:, None] == branch[None, :]
            causal = position[:, None] >= position[None, :]
            mask = (position[None, :] < self.table()[branch][:, branch]) & (causal | ~own)
            return mask if window is None else mask & (position[:, None] - position[None, :] < window)

        return self.cached(("visible", window), build)

    def cached(self, key: Any, build: Callable[[], T]) -> T:
        """Build a value once for this pack and device: the attention of every layer uses the same masks."""
        if key not in self.cache:
            self.cache[key] = build()
        value: T = self.cache[key]
        return value

    def slices(self, window: int | None = None) -> list[Slice]:
        """Return the branches with what each sees. Attention is called once for each of them."""
        return self.cached(("slices", window), lambda: [self._slice(r, window) for r in range(len(self.start))])

    def _slice(self, r: int, window: int | None) -> Slice:
        n, first = self.lengths[r], self.first[r]
        # A branch sees a prefix of each ancestor, since positions increase within a branch.
        before: list[tuple[int, int]] = []
        keys: list[Tensor] = []
        for k, limit in sorted(self.sees[r].items()):
            seen = min(self.lengths[k], limit - self.first[k])
            if seen > 0:
                before.append((k, seen))
                keys.append(torch.arange(self.first[k], self.first[k] + seen))
        # A branch that sees only itself, in full, needs no mask: sdpa then runs its causal kernel.
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
    """A branch with what it sees: the first tokens of the branches in `before`, and itself.

    mask: [n, m] over its n tokens and the m tokens that they see, or None for plain causal attention within itself.
    """

    index: int
    before: list[tuple[int, int]]
    mask: Tensor | None
