"""Mix dataset entries: how often the examples of each one are used in an epoch, and in which order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tunesmith_engine.batch.packing import pack, pack_in_order

Indices = NDArray[np.int64]


def shares(sizes: Sequence[int], weights: Sequence[float], temperature: float | None) -> list[int]:
    """Return the examples of each entry in an epoch: size times weight, evened out by a temperature.

    With a temperature T, shares are proportional to (size * weight) ** (1 / T), and the epoch keeps its length. Source:
    the sampling of multilingual models (Arivazhagan et al. 2019, arXiv 1907.05019, section 4.2).
    """
    examples = np.array(sizes, float) * np.array(weights, float)
    total = examples.sum()
    if temperature is not None and total:
        examples = np.where(examples > 0, examples, 0) ** (1 / temperature) * (np.array(sizes) > 0)
        examples *= total / examples.sum()
    # At least 1: rounding must not remove an entry. 10 rows with weight 0.01 still give one example.
    return [max(1, round(float(share))) if size else 0 for share, size in zip(examples, sizes, strict=True)]


class Mixture:
    """The examples of each epoch. entries [E]: the number of each example's dataset entry, in the order of the data.

    An entry of n examples that contributes k to an epoch is read in cycles over its n examples, each cycle shuffled
    anew. Epoch e takes examples e * k to (e + 1) * k of the cycles. All examples are therefore used equally often,
    whether k is below or above n; drawing with replacement would use some three times and others never.
    """

    def __init__(self, entries: Indices, weights: Sequence[float], temperature: float | None, seed: int):
        self.members = [np.flatnonzero(entries == entry) for entry in range(len(weights))]
        self.sizes = [len(members) for members in self.members]
        self.shares = shares(self.sizes, weights, temperature)
        self.seed = seed

    @property
    def plain(self) -> bool:
        """True if an epoch has every example once."""
        return self.shares == self.sizes

    def epoch(self, epoch: int) -> list[Indices]:
        """Return the examples of each entry in an epoch. Those of one cycle are in the order of the data."""
        if self.plain:
            return self.members
        return [self._examples(entry, epoch) for entry in range(len(self.members))]

    def _examples(self, entry: int, epoch: int) -> Indices:
        members, size, share = self.members[entry], self.sizes[entry], self.shares[entry]
        start, stop = epoch * share, (epoch + 1) * share
        parts = [np.zeros(0, np.int64)]
        # A cycle is drawn from its own number, so any epoch is computed alone: resuming replays nothing.
        for cycle in range(start // size, -(-stop // size)) if size else ():
            drawn = np.random.default_rng((self.seed, 4, entry, cycle)).permutation(size)
            # Sorted, for curriculum_sampling. Every other order is drawn later, in packs_in_order.
            parts.append(np.sort(drawn[max(start - cycle * size, 0) : stop - cycle * size]))
        return members[np.concatenate(parts).astype(np.int64)]


def packs_in_order(
    widths: NDArray[np.int64], parts: Sequence[Indices], capacity: int | None, seed: tuple[int, ...], how: str
) -> list[list[int]]:
    """Return packs of example indices. widths [E]; capacity of a pack in tokens, or None for one example per pack.

    parts are the examples of each entry. how: "merged" shuffles them together, "apart" shuffles each entry and trains
    on one entry after the other, "kept" keeps the order of the data.
    """
    if how == "merged":
        parts = [np.concatenate(parts)]
    packs: list[list[int]] = []
    for number, part in enumerate(parts):
        # The first part keeps the seed, so a config with one entry has the same order merged and apart.
        part_seed = seed if number == 0 else (*seed, number)
        if how == "kept":
            packed = [[i] for i in range(len(part))] if capacity is None else pack_in_order(widths[part], capacity)
        elif capacity is None:
            packed = [[i] for i in np.random.default_rng(part_seed).permutation(len(part)).tolist()]
        else:
            packed = pack(widths[part], capacity, part_seed)
        indices = part.tolist()
        packs += [[indices[i] for i in members] for members in packed]
    return packs
