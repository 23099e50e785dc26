"""Find rows that equal an earlier row."""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np

from tunesmith_dedup.table import Dropped, Table

if TYPE_CHECKING:
    from tunesmith import Row

BYTES = 16
"""Length of a row's hash. Among 10^12 different rows, two share a hash with a probability below 10^-14."""


def equal_rows(table: Table) -> Dropped:
    """Return the rows that equal an earlier row as JSON with sorted keys.

    Memory: 16 bytes per row, and the same again while the hashes are sorted.
    """
    hashes = bytearray()
    for row in table:
        hashes += row_hash(row)
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


def row_hash(row: Row) -> bytes:
    """Return the hash of a row as JSON with sorted keys. Values that JSON does not support are compared by their repr.

    Raises DataError if the row can't be serialized.
    """
    try:
        text = json.dumps(row, sort_keys=True, default=repr)
    except (TypeError, ValueError, RecursionError) as error:
        raise row.error("row", f"can't be compared: {error}") from error
    return blake2b(text.encode(), digest_size=BYTES).digest()
