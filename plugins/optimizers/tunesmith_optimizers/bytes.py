"""Compute the bytes of an optimizer's state for a parameter, from its shape. Source: the code of the libraries."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

Bytes = Callable[[Sequence[int]], float]
"""The shape of a parameter -> the bytes of its state."""
SMALL = 4096
"""Parameters with fewer numbers have states in 32 bits: a table of 8 bits would cost accuracy and save nothing."""


def floats(number: float) -> Bytes:
    """Return the bytes of a number of float32 states of the parameter's shape."""
    return lambda shape: 4 * number * math.prod(shape)


def blockwise(number: int) -> Bytes:
    """Return the bytes of 8-bit states of bitsandbytes, with a scale for each 256 numbers."""

    def count(shape: Sequence[int]) -> float:
        size = math.prod(shape)
        return 4 * number * size if size < SMALL else number * (size + 4 * math.ceil(size / 256))

    return count


def packed(bits: int, block: int, table: int) -> Bytes:
    """Return the bytes of the two states of torchao, with a scale for each block and a table of float32 numbers."""

    def count(shape: Sequence[int]) -> float:
        size = math.prod(shape)
        if size < SMALL or size % block:
            return 8 * size + 4
        return 2 * (size * bits / 8 + 4 * size / block + 4 * table) + 4

    return count


def factored(number: int, full: int = 0) -> Bytes:
    """Return the bytes of states of a row and a column each, with `full` states of the parameter's shape.

    Parameters of one dimension have one full state instead of the first.
    """

    def count(shape: Sequence[int]) -> float:
        size = math.prod(shape)
        if len(shape) < 2:
            return 4 * size * (1 + full)
        return 4 * (number * (size / shape[-1] + size / shape[-2]) + full * size)

    return count
