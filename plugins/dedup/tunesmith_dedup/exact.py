"""Rows that are equal."""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np

from tunesmith_dedup.table import Dropped, Table

if TYPE_CHECKING:
    from tunesmith import Row

BYTES = 16
"""Of a row's hash: two of 10^12 different rows share one with a probability below 10^-14."""


def equal_rows(table: Table) -> Dropped:
    """Rows that are equal to an earlier one as JSON, the order of keys aside. Memory: 16 bytes for each row, and as
    much again while they are sorted."""
    hashes = bytearray()
    for row in table:
        hashes += content(row)
    words = np.frombuffer(hashes, "<u8").reshape(-1, BYTES // 8)
    order = np.lexsort((words[:, 1], words[:, 0]))  # stable: the earliest of equal rows comes first
    ordered = words[order]
    new = np.ones(len(order), bool)
    new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    twins = np.empty(len(order), np.int64)
    twins[order] = order[new][np.cumsum(new) - 1]
    rows = np.flatnonzero(twins != np.arange(len(twins)))
    rows = rows[rows >= table.evaluated]
    return Dropped(rows, twins[rows])


def content(row: Row) -> bytes:
    """A hash of a row as JSON with sorted keys; what is no JSON counts as what it says of itself."""
    try:
        text = json.dumps(row, sort_keys=True, default=repr)
    except (TypeError, ValueError, RecursionError) as error:
        raise row.error("row", f"can't be compared: {error}") from error
    return blake2b(text.encode(), digest_size=BYTES).digest()
