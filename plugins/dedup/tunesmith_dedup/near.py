"""Rows that are nearly equal: candidates by MinHash (Broder 1997) in bands, each compared by its n-grams."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tunesmith_dedup.similar import MOST, Alike
from tunesmith_dedup.table import Dropped, Table
from tunesmith_dedup.texts import Ngrams, Splitter, mixed

if TYPE_CHECKING:
    from tunesmith_dedup import NearDeduplication

AT_ONCE = 1000
FOUND = 0.99
"""Least probability with which two rows whose similarity is the threshold become candidates."""


def near_duplicates(table: Table, settings: NearDeduplication) -> tuple[Dropped, dict[str, int]]:
    """Rows that are connected, by pairs whose Jaccard similarity reaches the threshold, to an earlier one.

    The second is what could not be compared: rows without text, and rows with more look-alikes than were looked at.
    Reads the rows twice. Memory: 8 bytes for each row and band (21 at the defaults), and again while they are sorted;
    and about 50 for each n-gram of a row that is a candidate.
    """
    splitter = Splitter(settings.ngram, settings.unit)
    numbers, keys = _band_keys(table, splitter, settings)
    buckets = list(_buckets(numbers, keys))
    del keys
    candidates = np.unique(np.concatenate(buckets)) if buckets else numbers[:0]
    alike = Alike(candidates, list(_ngrams_of(table, splitter, candidates)), settings.threshold)
    alike.connect(sorted(buckets, key=len))  # the small ones have most in common
    rows, twins = alike.repeated()
    later = rows >= table.evaluated
    unseen = {
        "without text, not compared": sum(table.sizes) - len(numbers),
        f"compared with {MOST:,} of their look-alikes, and no more": int(alike.cut.sum()),
    }
    return Dropped(rows[later], twins[later]), unseen


def bands(threshold: float, permutations: int) -> tuple[int, int]:
    """(number of bands, their width): the widest that find a pair at the threshold with a probability of FOUND."""
    for width in range(permutations, 1, -1):
        number = permutations // width
        if 1 - (1 - threshold**width) ** number >= FOUND:
            return number, width
    return permutations, 1


def _band_keys(
    table: Table, splitter: Splitter, settings: NearDeduplication
) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Numbers [R] of the rows that have text, and a key [bands, R] of each of their bands."""
    number, width = bands(settings.threshold, settings.permutations)
    numbers, keys = [], []
    start = 0
    for rows in batches(table):
        ngrams = splitter(rows)
        full = np.flatnonzero(ngrams.counts)
        signatures = _signatures(ngrams, settings)[full, : number * width].reshape(len(full), number, width)
        folded = np.zeros((len(full), number), np.uint64)
        for k in range(width):
            folded = mixed(folded ^ signatures[:, :, k])
        numbers.append(full + start)
        keys.append(folded.T)
        start += len(rows)
    if not numbers:
        return np.zeros(0, np.int64), np.zeros((number, 0), np.uint64)
    return np.concatenate(numbers), np.concatenate(keys, axis=1)


def _signatures(ngrams: Ngrams, settings: NearDeduplication) -> NDArray[np.uint64]:
    """MinHash signatures [rows, permutations]."""
    from rensa import RMinHash

    made = RMinHash.digest_matrix_from_flat_token_hashes(
        ngrams.hashes, ngrams.starts.astype(np.uint64), settings.permutations, settings.seed
    )
    return np.array(made.to_rows(), np.uint64).reshape(-1, settings.permutations)


def _buckets(numbers: NDArray[np.int64], keys: NDArray[np.uint64]) -> Iterator[NDArray[np.int64]]:
    """Numbers of rows that share a band, ascending, two or more."""
    for band in keys:
        order = np.argsort(band, kind="stable")
        edges = np.flatnonzero(np.diff(band[order])) + 1
        starts, ends = np.concatenate([[0], edges]), np.concatenate([edges, [len(order)]])
        several = ends - starts > 1
        for start, end in zip(starts[several].tolist(), ends[several].tolist(), strict=True):
            yield numbers[order[start:end]]


def _ngrams_of(table: Table, splitter: Splitter, wanted: NDArray[np.int64]) -> Iterator[NDArray[np.uint64]]:
    """The distinct n-grams of some rows, by number."""
    asked = set(wanted.tolist())
    for rows in batches(row for number, row in enumerate(table) if number in asked):
        ngrams = splitter(rows)
        yield from (np.unique(ngrams.of(index)) for index in range(len(rows)))


def batches(rows: Iterable[Any]) -> Iterator[list[Any]]:
    rows = iter(rows)
    while some := list(itertools.islice(rows, AT_ONCE)):
        yield some
