"""Find training rows that repeat words of evaluation files."""

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


class EvaluationIndex:
    """An index from the n-grams of evaluation rows to the rows that contain them."""

    def __init__(self, rows: Iterable[Row], splitter: Splitter):
        self.places: list[str] = []
        """The place of each row."""
        pieces, owners = [], []
        self.short = 0
        """The number of rows without an n-gram. They have fewer than n words, so no overlap with them is detected."""
        for batch in batches(rows):
            ngrams = splitter(batch)
            self.short += int((ngrams.counts == 0).sum())
            pieces.append(ngrams.hashes)
            owners.append(np.repeat(np.arange(len(batch)), ngrams.counts) + len(self.places))
            self.places += [row.where for row in batch]
        hashes = np.concatenate(pieces or [np.zeros(0, np.uint64)])
        rows_of = np.concatenate(owners or [np.zeros(0, np.int64)])
        order = np.lexsort((rows_of, hashes))
        hashes, rows_of = hashes[order], rows_of[order]
        new = np.ones(len(order), bool)  # a row counts once for an n-gram that it contains twice
        new[1:] = (hashes[1:] != hashes[:-1]) | (rows_of[1:] != rows_of[:-1])
        self.rows = rows_of[new]
        self.sizes = np.bincount(self.rows, minlength=len(self.places))
        self.hashes, starts = np.unique(hashes[new], return_index=True)
        self.edges = np.append(starts, len(self.rows))

    def lookup(self, hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Return the position [N] of each hash [N] in the index, or -1 if no evaluation row contains it."""
        if not len(self.hashes):
            return np.full(len(hashes), -1)
        index = np.searchsorted(self.hashes, hashes).clip(max=len(self.hashes) - 1)
        return np.where(self.hashes[index] == hashes, index, -1)

    def most_repeated(self, indices: NDArray[np.int64], threshold: float) -> int | None:
        """Return the evaluation row of which the n-grams at `indices` are the largest share, the earliest if tied.

        Return None if that share is below `threshold`.
        """
        rows = np.concatenate([self.rows[self.edges[i] : self.edges[i + 1]] for i in np.unique(indices).tolist()])
        candidates, counts = np.unique(rows, return_counts=True)
        shares = counts / self.sizes[candidates]
        best = int(shares.argmax())
        return int(candidates[best]) if shares[best] >= threshold else None


def contaminated(table: Table, evaluation: EvaluationIndex, splitter: Splitter, threshold: float) -> Dropped:
    """Return the training rows that repeat at least a share of `threshold` of an evaluation row's n-grams.

    `twins` of the result are numbers of rows in `evaluation`.
    """
    dropped: list[tuple[int, int]] = []
    start = 0
    for batch in batches(table):
        ngrams = splitter(batch)
        index = evaluation.lookup(ngrams.hashes)
        hits = index >= 0
        owner = np.repeat(np.arange(len(batch)), ngrams.counts)
        for row in np.unique(owner[hits]).tolist():
            own = index[ngrams.starts[row] : ngrams.starts[row + 1]]
            twin = evaluation.most_repeated(own[own >= 0], threshold)
            if twin is not None:
                dropped.append((start + row, twin))
        start += len(batch)
    rows, twins = np.array(dropped, np.int64).reshape(-1, 2).T
    is_training = rows >= table.evaluated
    return Dropped(rows[is_training], twins[is_training])
