"""Rows that repeat words of evaluation files."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tunesmith_dedup.near import batches
from tunesmith_dedup.table import Dropped, Table
from tunesmith_dedup.texts import Splitter

if TYPE_CHECKING:
    from tunesmith import Row


class Held:
    """The n-grams of evaluation rows, and the rows that each stands in."""

    def __init__(self, rows: Iterable[Row], splitter: Splitter):
        self.places: list[str] = []
        """Of each row."""
        pieces, owners = [], []
        self.short = 0
        """Rows of fewer than n words, which nothing can be found to share."""
        for some in batches(rows):
            ngrams = splitter(some)
            self.short += int((ngrams.counts == 0).sum())
            pieces.append(ngrams.hashes)
            owners.append(np.repeat(np.arange(len(some)), ngrams.counts) + len(self.places))
            self.places += [row.where for row in some]
        hashes = np.concatenate(pieces or [np.zeros(0, np.uint64)])
        rows_of = np.concatenate(owners or [np.zeros(0, np.int64)])
        order = np.lexsort((rows_of, hashes))
        hashes, rows_of = hashes[order], rows_of[order]
        new = np.ones(len(order), bool)  # a row counts once for an n-gram that it has twice
        new[1:] = (hashes[1:] != hashes[:-1]) | (rows_of[1:] != rows_of[:-1])
        self.rows = rows_of[new]
        self.sizes = np.bincount(self.rows, minlength=len(self.places))
        self.hashes, starts = np.unique(hashes[new], return_index=True)
        self.edges = np.append(starts, len(self.rows))

    def shared(self, hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
        """For each hash [N], its index here, or -1."""
        if not len(self.hashes):
            return np.full(len(hashes), -1)
        index = np.searchsorted(self.hashes, hashes).clip(max=len(self.hashes) - 1)
        return np.where(self.hashes[index] == hashes, index, -1)

    def row_of(self, indices: NDArray[np.int64], share: float) -> int | None:
        """The evaluation row of which these n-grams are the largest share, the earliest of several; None if that is
        below `share`."""
        rows = np.concatenate([self.rows[self.edges[i] : self.edges[i + 1]] for i in np.unique(indices).tolist()])
        found, counts = np.unique(rows, return_counts=True)
        shares = counts / self.sizes[found]
        best = int(shares.argmax())
        return int(found[best]) if shares[best] >= share else None


def contaminated(table: Table, held: Held, splitter: Splitter, threshold: float) -> Dropped:
    """Rows to train on that share n-grams with an evaluation row, at least `threshold` of those that it has.

    `twins` are rows of `held`.
    """
    dropped: list[tuple[int, int]] = []
    start = 0
    for some in batches(table):
        ngrams = splitter(some)
        index = held.shared(ngrams.hashes)
        hits = index >= 0
        owner = np.repeat(np.arange(len(some)), ngrams.counts)
        for row in np.unique(owner[hits]).tolist():
            own = index[ngrams.starts[row] : ngrams.starts[row + 1]]
            twin = held.row_of(own[own >= 0], threshold)
            if twin is not None:
                dropped.append((start + row, twin))
        start += len(some)
    rows, twins = np.array(dropped, np.int64).reshape(-1, 2).T
    later = rows >= table.evaluated
    return Dropped(rows[later], twins[later])
