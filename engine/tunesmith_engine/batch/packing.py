"""Pack examples into packs of limited length, best fit or in order.

Packing needs about 16 bytes per item at its peak, and 4 to 8 afterwards, so that 100 million examples can be packed.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

CHUNK = 1 << 16
"""Items that are processed at a time. Larger chunks need more memory, and are not faster."""


class IndexPacks(Sequence[list[int]]):
    """Packs of the indices of items, each a list.

    members: the indices of all packs end to end. ends [P]: where each pack ends in `members`.
    """

    def __init__(self, members: NDArray[Any], ends: NDArray[Any]):
        self.members, self.ends = members, ends

    @classmethod
    def single(cls, members: NDArray[Any]) -> IndexPacks:
        """Create packs of one item each."""
        return cls(members, np.arange(1, len(members) + 1, dtype=_unsigned(len(members))))

    @classmethod
    def joined(cls, parts: Sequence[IndexPacks]) -> IndexPacks:
        """Return the packs of all parts, in their order."""
        if len(parts) == 1:
            return parts[0]
        ends = np.zeros(sum(map(len, parts)), _unsigned(sum(len(part.members) for part in parts)))
        packs = items = 0
        for part in parts:
            ends[packs : packs + len(part)] = part.ends
            ends[packs : packs + len(part)] += ends.dtype.type(items)
            packs, items = packs + len(part), items + len(part.members)
        return cls(np.concatenate([part.members for part in parts]) if parts else np.zeros(0, np.uint32), ends)

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, index: int) -> list[int]: ...
    @overload
    def __getitem__(self, index: slice) -> list[list[int]]: ...
    def __getitem__(self, index: int | slice) -> list[int] | list[list[int]]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        start = int(self.ends[index - 1]) if index else 0
        members: list[int] = self.members[start : int(self.ends[index])].tolist()
        return members

    def __iter__(self) -> Iterator[list[int]]:
        for at in range(0, len(self), CHUNK):
            start = int(self.ends[at - 1]) if at else 0
            ends = self.ends[at : at + CHUNK].tolist()
            for end in ends:
                yield self.members[start:end].tolist()
                start = end

    def __eq__(self, other: object) -> bool:
        if isinstance(other, IndexPacks):
            return np.array_equal(self.members, other.members) and np.array_equal(self.ends, other.ends)
        return list(self) == other

    __hash__ = None  # type: ignore[assignment]

    def cut(self, number: int) -> IndexPacks:
        """Return `number` packs: the first ones, or all again from the first one if there are fewer."""
        if number <= len(self):
            return IndexPacks(self.members[: int(self.ends[number - 1]) if number else 0], self.ends[:number])
        full, rest = divmod(number, len(self))
        return IndexPacks.joined([self] * full + [self.cut(rest)] * bool(rest))

    def totals(self, widths: NDArray[Any]) -> NDArray[np.int64]:
        """Return the sum of the widths of each pack's items [P]."""
        totals = np.zeros(len(self), np.int64)
        for at in range(0, len(self), CHUNK):
            ends = self.ends[at : at + CHUNK].astype(np.int64)
            start = int(self.ends[at - 1]) if at else 0
            own = widths[self.members[start : ends[-1]]].astype(np.int64)
            totals[at : at + CHUNK] = np.add.reduceat(own, np.concatenate([[0], ends[:-1] - start]))
        return totals


def pack(widths: NDArray[Any], capacity: int, seed: tuple[int, ...] | None = None) -> IndexPacks:
    """Distribute items of the given widths [E] over packs of `capacity` by best fit, widest first.

    Items are taken in decreasing width, and items of equal width in an order drawn from `seed`. Each goes into the pack
    with the least room that still fits it. Packs are returned in an order drawn from `seed`, or without a seed in the
    order in which they were opened. The number of packs depends on the widths alone. An item wider than the capacity
    gets a pack of its own.
    """
    generator = np.random.default_rng(seed) if seed is not None else None
    items = _widest_first(widths, generator)
    numbers, packs = _best_fit(widths, items, capacity)
    del widths  # the caller may have no use for them either
    place = np.arange(packs, dtype=_unsigned(packs))
    if generator is not None:
        # Best fit opens the packs of the widest items first. Shuffled, long examples are spread over the steps.
        order = generator.permutation(place)  # the same draws as permutation(packs), in 4 bytes each
        place[order] = np.arange(packs, dtype=place.dtype)
    sizes = np.zeros(packs, _unsigned(len(items)))
    for at in range(0, len(items), CHUNK):
        np.add.at(sizes, place[numbers[at : at + CHUNK]], sizes.dtype.type(1))
    # `sizes` becomes the next free slot of each pack, and in the end, where the pack ends.
    ends = np.cumsum(sizes, dtype=sizes.dtype)
    ends -= sizes
    del sizes
    members = np.empty(len(items), items.dtype)
    for at in range(0, len(items), CHUNK):
        _distribute(place[numbers[at : at + CHUNK]], items[at : at + CHUNK], ends, members)
    return IndexPacks(members, ends)


def _widest_first(widths: NDArray[Any], generator: np.random.Generator | None) -> NDArray[Any]:
    """Return the items in decreasing width, and those of equal width in a drawn order. A counting sort."""
    number = len(widths)
    drawn = np.arange(number, dtype=_unsigned(number))
    if generator is not None:
        generator.shuffle(drawn)  # the same draws as permutation(number), in 4 bytes each
    widest = int(widths.max()) if number else 0
    sizes = np.zeros(widest + 1, np.int64)
    for at in range(0, number, CHUNK):
        sizes += np.bincount(widest - widths[at : at + CHUNK].astype(np.int64), minlength=widest + 1)
    free = np.cumsum(sizes) - sizes  # by how much narrower than the widest
    items = np.empty_like(drawn)
    for at in range(0, number, CHUNK):
        own = drawn[at : at + CHUNK]
        _distribute(widest - widths[own].astype(np.int64), own, free, items)
    return items


def _distribute(slots: NDArray[Any], values: NDArray[Any], free: NDArray[Any], out: NDArray[Any]) -> None:
    """Write each value to the next free place of its slot in `out`, in order, and move `free` on."""
    order = np.argsort(slots, kind="stable")
    ordered = slots[order]
    first = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    lengths = np.diff(np.concatenate([first, [len(ordered)]]))
    rank = np.arange(len(ordered)) - np.repeat(first, lengths)
    out[free[ordered].astype(np.int64) + rank] = values[order]
    free[ordered[first]] += lengths.astype(free.dtype)


def _best_fit(widths: NDArray[Any], items: NDArray[Any], capacity: int) -> tuple[NDArray[Any], int]:
    """Return the pack of each item, in the order of `items`, and the number of packs.

    Packs with equal room are on one stack, and the rooms that have a stack are the set bits of one integer. Finding the
    best fit is a shift and a lowest set bit: a million items of at most 2,048 tokens take a second or two.
    """
    stacks = [array("L" if len(items) >> 32 else "I") for _ in range(capacity + 1)]
    numbers = np.empty(len(items), items.dtype)
    rooms = packs = 0
    for at in range(0, len(items), CHUNK):
        chosen = []
        for width in widths[items[at : at + CHUNK]].tolist():
            fitting = rooms >> width  # bit k: a pack with room width + k exists
            if fitting:
                room = width + (fitting & -fitting).bit_length() - 1
                stack = stacks[room]
                number = stack.pop()
                if not stack:
                    rooms &= ~(1 << room)
                remaining = room - width
            else:
                number, remaining = packs, capacity - width
                packs += 1
            chosen.append(number)
            if remaining > 0:
                stacks[remaining].append(number)
                rooms |= 1 << remaining
        numbers[at : at + CHUNK] = chosen
    return numbers, packs


def pack_in_order(widths: NDArray[Any], capacity: int) -> IndexPacks:
    """Distribute items over packs in their order. The first item that does not fit closes a pack."""
    ends = array("L")
    room, item = -1, 0
    for at in range(0, len(widths), CHUNK):
        for width in widths[at : at + CHUNK].tolist():
            if width > room:
                if item:
                    ends.append(item)
                room = capacity
            item += 1
            room -= width
    if item:
        ends.append(item)
    kind = _unsigned(len(widths))
    return IndexPacks(np.arange(len(widths), dtype=kind), np.array(ends, kind))


def efficiency(widths: NDArray[Any], packs: IndexPacks, capacity: int) -> float:
    """Return the share of the packs' room that is filled, at most 1.0. A pack wider than `capacity` counts as full."""
    filled = int(np.minimum(packs.totals(widths), capacity).sum())
    return filled / (capacity * len(packs)) if len(packs) else 1.0


def _unsigned(number: int) -> type[np.unsignedinteger[Any]]:
    """Return the type of indices into so many items: 4 bytes each up to 4 billion."""
    return np.uint64 if number >> 32 else np.uint32
