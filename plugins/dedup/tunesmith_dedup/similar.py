"""Compare candidate rows and connect those that are similar."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

COMPARISONS = 250
"""The number of rows that a row is compared with, over all its buckets.

Without a limit, rows that are made from one template and slightly less similar than the threshold would all be compared
with each other."""


class SimilarRows:
    """Candidate rows and their components, connected by pairs whose Jaccard similarity reaches the threshold.

    Methods address candidates by their position in `numbers`.

    Args:
        numbers: The row numbers [C] of the candidates, ascending.
        ngrams: The hashes of the distinct n-grams of each candidate.
        threshold: The least Jaccard similarity of connected rows.
    """

    def __init__(self, numbers: NDArray[np.int64], ngrams: list[NDArray[np.uint64]], threshold: float):
        self.numbers, self.threshold = numbers, threshold
        self.sizes = np.fromiter(map(len, ngrams), np.int64, len(ngrams))
        values, indices = np.unique(np.concatenate([*ngrams, np.zeros(0, np.uint64)]), return_inverse=True)
        self.ngrams = np.split(indices, np.cumsum(self.sizes)[:-1])  # n-grams as indices of `marked`
        self.marked = np.zeros(len(values), bool)
        self.component = np.arange(len(numbers))
        self.members = {position: [position] for position in range(len(numbers))}
        self.budget = np.full(len(numbers), COMPARISONS)
        self.limited = np.zeros(len(numbers), bool)
        """True for candidates that were not compared with all rows of their buckets."""

    def connect(self, buckets: Iterable[NDArray[np.int64]]) -> None:
        """Compare the rows of each bucket, given by their numbers, unless they are already connected."""
        for bucket in buckets:
            waiting = np.searchsorted(self.numbers, bucket)
            while len(waiting) > 1 and (self.component[waiting] != self.component[waiting[0]]).any():
                waiting = self._spread(waiting[0], waiting[1:])

    def repeated(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the numbers of the rows connected to an earlier row, ascending, and the earliest row of each."""
        first = np.arange(len(self.numbers))
        for members in self.members.values():
            first[members] = min(members)
        rows = np.flatnonzero(first != np.arange(len(first)))
        return self.numbers[rows], self.numbers[first[rows]]

    def _spread(self, start: np.int64, waiting: NDArray[np.int64]) -> NDArray[np.int64]:
        """Connect all rows of a bucket that can be reached from `start`, and return the others."""
        reached = [start]
        while reached and len(waiting):
            current = reached.pop()
            room = self.budget[current]
            self.limited[current] |= room < len(waiting)
            same = self.component[waiting[:room]] == self.component[current]
            connected = same.copy()
            connected[~same] = self._are_similar(current, waiting[:room][~same])
            if connected.any():
                for neighbor in waiting[:room][connected & ~same].tolist():
                    self._merge(current, neighbor)
                reached.extend(waiting[:room][connected])
                waiting = np.concatenate([waiting[:room][~connected], waiting[room:]])
        return waiting

    def _are_similar(self, current: np.int64, others: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return a mask of the others whose Jaccard similarity with `current` reaches the threshold."""
        if not len(others):
            return np.zeros(0, bool)
        self.budget[current] -= len(others)
        self.marked[self.ngrams[current]] = True
        sizes = self.sizes[others]
        hits = self.marked[np.concatenate([self.ngrams[other] for other in others])]
        shared = np.add.reduceat(hits, np.cumsum(sizes) - sizes, dtype=np.int64)
        self.marked[self.ngrams[current]] = False
        return shared / (self.sizes[current] + sizes - shared) >= self.threshold

    def _merge(self, current: np.int64, neighbor: int) -> None:
        """Merge the components of two candidates."""
        larger, smaller = int(self.component[current]), int(self.component[neighbor])
        if larger == smaller:
            return
        if len(self.members[larger]) < len(self.members[smaller]):
            larger, smaller = smaller, larger
        moved = self.members.pop(smaller)
        self.component[moved] = larger
        self.members[larger] += moved
