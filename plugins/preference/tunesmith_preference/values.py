"""Read numbers and labels of a row."""

from __future__ import annotations

from typing import Any

from tunesmith import Row

LARGEST = 3.4e38
"""Largest number of a column, which is stored in 32 bits."""


def label(row: Row, column: str) -> float:
    """Return 1.0 or 0.0. Raises DataError for anything but true, false, 1 and 0, such as the text "true"."""
    value = row.require(column, object)
    if isinstance(value, int) and value in (0, 1):
        return float(value)
    raise row.error(column, f"must be true or false (1 or 0), got {shown(value)}")


def number(row: Row, column: str) -> float:
    """Return a finite number. Raises DataError for anything else."""
    value = row.require(column, object)
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST:  # false for nan
        return float(value)
    raise row.error(column, f"must be a number, got {shown(value)}")


def shown(value: Any) -> str:
    """Return a short text of a value for an error: "null" for None, as in JSON."""
    return "null" if value is None else f"{value!a:.40}"
