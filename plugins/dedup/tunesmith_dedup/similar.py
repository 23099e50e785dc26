"""Which candidates are alike, and what they are connected to."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

MOST = 250
"""Rows that one is compared with, over all its buckets: else, of rows made from one template that are all a little less
alike than the threshold, each would be compared with each."""


class Alike:
    """Candidates by position, and their components: those whose Jaccard similarity reaches the threshold, pair by pair.

    `numbers` [C] are the rows that they are, ascending; `ngrams` the hashes of their distinct n-grams.
    """

    def __init__(self, numbers: NDArray[np.int64], ngrams: list[NDArray[np.uint64]], threshold: float):
        self.numbers, self.threshold = numbers, threshold
        self.sizes = np.fromiter(map(len, ngrams), np.int64, len(ngrams))
        values, indices = np.unique(np.concatenate([*ngrams, np.zeros(0, np.uint64)]), return_inverse=True)
        self.ngrams = np.split(indices, np.cumsum(self.sizes)[:-1])  # from here on n-grams are small numbers
        self.marked = np.zeros(len(values), bool)
        self.component = np.arange(len(numbers))
        self.members = {position: [position] for position in range(len(numbers))}
        self.left = np.full(len(numbers), MOST)
        self.cut = np.zeros(len(numbers), bool)
        """Of each, whether it was not compared with all that it might be alike to."""

    def connect(self, buckets: Iterable[NDArray[np.int64]]) -> None:
        """Compare the rows of each bucket, by number, with each other, as far as they aren't connected by then."""
        for bucket in buckets:
            waiting = np.searchsorted(self.numbers, bucket)
            while len(waiting) > 1 and (self.component[waiting] != self.component[waiting[0]]).any():
                waiting = self._spread(waiting[0], waiting[1:])

    def repeated(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Numbers of the rows that are connected to an earlier one, ascending, and of the earliest."""
        first = np.arange(len(self.numbers))
        for members in self.members.values():
            first[members] = min(members)
        rows = np.flatnonzero(first != np.arange(len(first)))
        return self.numbers[rows], self.numbers[first[rows]]

    def _spread(self, start: np.int64, waiting: NDArray[np.int64]) -> NDArray[np.int64]:
        """Connect all that can be reached from `start` in a bucket; what is left of it."""
        reached = [start]
        while reached and len(waiting):
            one = reached.pop()
            room = self.left[one]
            self.cut[one] |= room < len(waiting)
            same = self.component[waiting[:room]] == self.component[one]
            found = same.copy()
            found[~same] = self._are_alike(one, waiting[:room][~same])
            if found.any():
                for other in waiting[:room][found & ~same].tolist():
                    self._join(one, other)
                reached.extend(waiting[:room][found])
                waiting = np.concatenate([waiting[:room][~found], waiting[room:]])
        return waiting

    def _are_alike(self, one: np.int64, others: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Of each of the others, whether it shares as many n-grams with `one` as the threshold says."""
        if not len(others):
            return np.zeros(0, bool)
        self.left[one] -= len(others)
        self.marked[self.ngrams[one]] = True
        sizes = self.sizes[others]
        hits = self.marked[np.concatenate([self.ngrams[other] for other in others])]
        shared = np.add.reduceat(hits, np.cumsum(sizes) - sizes, dtype=np.int64)
        self.marked[self.ngrams[one]] = False
        return shared / (self.sizes[one] + sizes - shared) >= self.threshold

    def _join(self, one: np.int64, other: int) -> None:
        """Make two components one."""
        larger, smaller = int(self.component[one]), int(self.component[other])
        if larger == smaller:
            return
        if len(self.members[larger]) < len(self.members[smaller]):
            larger, smaller = smaller, larger
        moved = self.members.pop(smaller)
        self.component[moved] = larger
        self.members[larger] += moved
