"""How often the examples of each dataset entry are seen in an epoch, and in which order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tunesmith_engine.batch.packing import pack, pack_in_order

Indices = NDArray[np.int64]


def shares(sizes: Sequence[int], weights: Sequence[float], temperature: float | None) -> list[int]:
    """Examples of each entry in an epoch: size times weight, evened out by a temperature.

    With a temperature T, shares are proportional to (size * weight) ** (1 / T) and the epoch is as long as without:
    the sampling of multilingual models (Arivazhagan et al. 2019, arXiv 1907.05019, section 4.2).
    """
    wanted = np.array(sizes, float) * np.array(weights, float)
    total = wanted.sum()
    if temperature is not None and total:
        wanted = np.where(wanted > 0, wanted, 0) ** (1 / temperature) * (np.array(sizes) > 0)
        wanted *= total / wanted.sum()
    return [max(1, round(float(one))) if size else 0 for one, size in zip(wanted, sizes, strict=True)]


class Mixture:
    """The examples of each epoch. entries [E]: the number of each example's dataset entry, in the order of the data.

    An entry of n examples that gives k to an epoch is gone through again and again, shuffled anew each time: epoch e
    takes examples e * k to (e + 1) * k of that, so that all are seen equally often however k and n compare.
    """

    def __init__(self, entries: Indices, weights: Sequence[float], temperature: float | None, seed: int):
        self.members = [np.flatnonzero(entries == entry) for entry in range(len(weights))]
        self.sizes = [len(members) for members in self.members]
        self.shares = shares(self.sizes, weights, temperature)
        self.seed = seed

    @property
    def plain(self) -> bool:
        """Whether an epoch is every example once."""
        return self.shares == self.sizes

    def epoch(self, epoch: int) -> list[Indices]:
        """For each entry its examples in an epoch; each pass through an entry is in the order of the data."""
        if self.plain:
            return self.members
        return [self._of(entry, epoch) for entry in range(len(self.members))]

    def _of(self, entry: int, epoch: int) -> Indices:
        members, size, share = self.members[entry], self.sizes[entry], self.shares[entry]
        start, stop = epoch * share, (epoch + 1) * share
        parts = [np.zeros(0, np.int64)]
        for cycle in range(start // size, -(-stop // size)) if size else ():
            drawn = np.random.default_rng((self.seed, 4, entry, cycle)).permutation(size)
            parts.append(np.sort(drawn[max(start - cycle * size, 0) : stop - cycle * size]))
        return members[np.concatenate(parts).astype(np.int64)]


def packs_in_order(
    widths: NDArray[np.int64], parts: Sequence[Indices], capacity: int | None, seed: tuple[int, ...], how: str
) -> list[list[int]]:
    """Rows of example indices. widths [E]; capacity of a row in tokens, None for one example a row.

    how: merged shuffles over all parts, apart shuffles within each part, one after the other; kept keeps the order.
    """
    if how == "merged":
        parts = [np.concatenate(parts)]
    rows: list[list[int]] = []
    for number, part in enumerate(parts):
        one = seed if number == 0 else (*seed, number)
        if how == "kept":
            found = [[i] for i in range(len(part))] if capacity is None else pack_in_order(widths[part], capacity)
        elif capacity is None:
            found = [[i] for i in np.random.default_rng(one).permutation(len(part)).tolist()]
        else:
            found = pack(widths[part], capacity, one)
        chosen = part.tolist()
        rows += [[chosen[i] for i in row] for row in found]
    return rows
