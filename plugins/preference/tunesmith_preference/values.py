"""Numbers and flags of a row, as the loss wants them."""

from __future__ import annotations

from typing import Any

from tunesmith import Row

LARGEST = 3.4e38
"""Of a column's numbers, which are kept in 32 bits."""


def label(row: Row, column: str) -> float:
    """1.0 or 0.0. Raises DataError for anything but true, false, 1 and 0: a text is never read as one of them."""
    value = row.require(column, object)
    if isinstance(value, int) and value in (0, 1):
        return float(value)
    raise row.error(column, f"is {shown(value)}, not true or false (1 or 0)")


def number(row: Row, column: str) -> float:
    """A finite number. Raises DataError for anything else."""
    value = row.require(column, object)
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST:  # false for nan
        return float(value)
    raise row.error(column, f"is {shown(value)}, not a number")


def shown(value: Any) -> str:
    """A value in an error: short, and null as data calls it."""
    return "null" if value is None else f"{value!a:.40}"
