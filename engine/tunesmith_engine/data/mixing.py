"""Mix dataset entries: how often the examples of each one are used in an epoch, and in which order."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith_engine.batch.packing import CHUNK, IndexPacks, pack, pack_in_order

Part = range | NDArray[Any]
"""Indices of examples in an order. A range needs no memory."""


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

    def __init__(self, entries: NDArray[Any], weights: Sequence[float], temperature: float | None, seed: int):
        self.members = _members(entries, len(weights))
        self.sizes = [len(members) for members in self.members]
        self.shares = shares(self.sizes, weights, temperature)
        self.seed = seed

    @property
    def plain(self) -> bool:
        """True if an epoch has every example once."""
        return self.shares == self.sizes

    def epoch(self, epoch: int) -> list[Part]:
        """Return the examples of each entry in an epoch. Those of one cycle are in the order of the data."""
        if self.plain:
            return self.members
        return [self._examples(entry, epoch) for entry in range(len(self.members))]

    def _examples(self, entry: int, epoch: int) -> Part:
        members, size, share = self.members[entry], self.sizes[entry], self.shares[entry]
        start, stop = epoch * share, (epoch + 1) * share
        drawn = np.zeros(stop - start if size else 0, np.uint32 if size >> 32 == 0 else np.uint64)
        # A cycle is drawn from its own number, so any epoch is computed alone: resuming replays nothing.
        for cycle in range(start // size, -(-stop // size)) if size else ():
            order = np.arange(size, dtype=drawn.dtype)
            np.random.default_rng((self.seed, 4, entry, cycle)).shuffle(order)
            first, last = max(start - cycle * size, 0), min(stop - cycle * size, size)
            at = cycle * size + first - start
            drawn[at : at + last - first] = order[first:last]
            # Sorted, for curriculum_sampling. Every other order is drawn later, in packs_in_order.
            drawn[at : at + last - first].sort()
        if isinstance(members, range):
            np.add(drawn, drawn.dtype.type(members.start), out=drawn)
            return drawn
        return members[drawn]


def _members(entries: NDArray[Any], number: int) -> list[Part]:
    """Return the examples of each entry: a range if they are next to each other, as those of prepared data are."""
    sizes, sorted_ = np.zeros(number, np.int64), True
    last = 0
    for at in range(0, len(entries), CHUNK):
        chunk = np.asarray(entries[at : at + CHUNK])
        sorted_ = sorted_ and int(chunk[0]) >= last and bool((chunk[1:] >= chunk[:-1]).all())
        last = int(chunk[-1])
        sizes += np.bincount(chunk, minlength=number)
    if not sorted_:
        return [np.flatnonzero(entries == entry) for entry in range(number)]
    ends = np.cumsum(sizes).tolist()
    return [range(end - size, end) for end, size in zip(ends, sizes.tolist(), strict=True)]


def packs_in_order(
    widths: NDArray[Any], parts: Sequence[Part], capacity: int | None, seed: tuple[int, ...], how: str
) -> IndexPacks:
    """Return packs of example indices. widths [E]; capacity of a pack in tokens, or None for one example per pack.

    parts are the examples of each entry. how: "merged" shuffles them together, "apart" shuffles each entry and trains
    on one entry after the other, "kept" keeps the order of the data.
    """
    if how == "merged":
        parts = [_merged(parts)]
    box, packed = [widths], []
    del widths  # `pack` frees the widths of the last part, which are 2 of its 16 bytes per example
    for number, part in enumerate(parts):
        # The first part keeps the seed, so a config with one entry has the same order merged and apart.
        part_seed = seed if number == 0 else (*seed, number)

        def own(part: Part = part, last: bool = number == len(parts) - 1) -> NDArray[Any]:
            all_widths = box.pop() if last else box[0]
            return all_widths[part.start : part.stop] if isinstance(part, range) else all_widths[part]

        if capacity is None:
            packs = _singly(len(part), part_seed, how)
        elif how == "kept":
            packs = pack_in_order(own(), capacity)
        else:
            packs = pack(own(), capacity, part_seed)
        if isinstance(part, range):
            np.add(packs.members, packs.members.dtype.type(part.start), out=packs.members)
        else:
            packs.members = part[packs.members]
        packed.append(packs)
    return IndexPacks.joined(packed)


def _singly(number: int, seed: tuple[int, ...], how: str) -> IndexPacks:
    """Return packs of one example each, shuffled unless their order is kept."""
    places = np.arange(number, dtype=np.uint64 if number >> 32 else np.uint32)
    if how != "kept":
        np.random.default_rng(seed).shuffle(places)  # the same draws as permutation(number), in 4 bytes each
    return IndexPacks.single(places)


def _merged(parts: Sequence[Part]) -> Part:
    filled = [part for part in parts if len(part)]
    ranges = [part for part in filled if isinstance(part, range)]
    if len(ranges) == len(filled) and all(a.stop == b.start for a, b in pairwise(ranges)):
        return range(ranges[0].start, ranges[-1].stop) if ranges else range(0)
    return np.concatenate([np.asarray(part) for part in filled])
