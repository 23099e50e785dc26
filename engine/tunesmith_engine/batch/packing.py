"""Best-fit bin packing of examples into rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def pack(widths: NDArray[np.int64], capacity: int, seed: tuple[int, ...] | None = None) -> list[list[int]]:
    """Put items of the given widths [E] into rows of `capacity`, best fit, widest first.

    Items are taken in decreasing width, items of equal width in an order drawn from `seed`; each goes into the row
    whose free room is the smallest that holds it. Rows come back in an order drawn from `seed` (without one: as they
    were opened). The number of rows depends on the widths alone. An item wider than a row gets a row of its own.

    Rows with the same free room lie on one stack, and the rooms that have a stack are the set bits of one integer, so
    finding the best fit is a shift and a lowest set bit: a million items of at most 2,048 take about two seconds.
    """
    generator = np.random.default_rng(seed) if seed is not None else None
    order = np.arange(len(widths)) if generator is None else generator.permutation(len(widths))
    order = order[np.argsort(-widths[order], kind="stable")]
    rows: list[list[int]] = []
    stacks: list[list[int]] = [[] for _ in range(capacity + 1)]
    rooms = 0
    for item, width in zip(order.tolist(), widths[order].tolist(), strict=True):
        fitting = rooms >> width
        if fitting:
            room = width + (fitting & -fitting).bit_length() - 1
            stack = stacks[room]
            row = stack.pop()
            if not stack:
                rooms &= ~(1 << room)
            rows[row].append(item)
            left = room - width
        else:
            row, left = len(rows), capacity - width
            rows.append([item])
        if left > 0:
            stacks[left].append(row)
            rooms |= 1 << left
    if generator is None:
        return rows
    return [rows[i] for i in generator.permutation(len(rows))]


def pack_in_order(widths: NDArray[np.int64], capacity: int) -> list[list[int]]:
    """Put items into rows as they come: a row is closed by the first item that it can't hold."""
    rows: list[list[int]] = []
    room = -1
    for item, width in enumerate(widths.tolist()):
        if width > room:
            rows.append([])
            room = capacity
        rows[-1].append(item)
        room -= width
    return rows


def efficiency(widths: NDArray[np.int64], rows: list[list[int]], capacity: int) -> float:
    """Filled share of the rows' room, 1.0 at best; a row that is wider than the capacity counts as full."""
    filled = sum(min(capacity, int(widths[row].sum())) for row in rows)
    return filled / (capacity * len(rows)) if rows else 1.0
