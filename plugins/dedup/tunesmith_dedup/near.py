"""Find near duplicates: MinHash (Broder 1997) in bands proposes candidates, and their n-grams are then compared."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tunesmith_dedup.similar import COMPARISONS, SimilarRows
from tunesmith_dedup.table import Dropped, Table
from tunesmith_dedup.texts import Ngrams, Splitter, mix

if TYPE_CHECKING:
    from tunesmith_dedup import NearDeduplication

BATCH = 1000
"""Rows that are split into n-grams at a time."""
RECALL = 0.99
"""The least probability with which two rows whose similarity equals the threshold become candidates."""


def near_duplicates(table: Table, settings: NearDeduplication) -> tuple[Dropped, dict[str, int]]:
    """Return the rows connected to an earlier row by pairs whose Jaccard similarity reaches the threshold.

    The second result has the number of rows that were not compared with all others: those without text, and those
    that reached the limit of comparisons. The rows are read twice. Memory: 8 bytes per row and band (21 bands with the
    defaults), the same again while they are sorted, and about 50 bytes per n-gram of a candidate.
    """
    splitter = Splitter(settings.ngram, settings.unit)
    numbers, keys = _band_keys(table, splitter, settings)
    buckets = list(_buckets(numbers, keys))
    del keys
    candidates = np.unique(np.concatenate(buckets)) if buckets else numbers[:0]
    similar = SimilarRows(candidates, list(_ngrams_of(table, splitter, candidates)), settings.threshold)
    similar.connect(sorted(buckets, key=len))  # rows in small buckets have the most in common
    rows, twins = similar.repeated()
    is_training = rows >= table.evaluated
    limits = {
        "without text, not compared": sum(table.sizes) - len(numbers),
        f"compared with only {COMPARISONS:,} similar rows": int(similar.limited.sum()),
    }
    return Dropped(rows[is_training], twins[is_training]), limits


def bands(threshold: float, permutations: int) -> tuple[int, int]:
    """Return the number of bands and their width.

    The bands are the widest that find a pair at the threshold with a probability of at least RECALL.
    """
    for width in range(permutations, 1, -1):
        number = permutations // width
        if 1 - (1 - threshold**width) ** number >= RECALL:
            return number, width
    return permutations, 1


def _band_keys(
    table: Table, splitter: Splitter, settings: NearDeduplication
) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Return the numbers [R] of the rows that have text, and the keys [bands, R] of their bands."""
    number, width = bands(settings.threshold, settings.permutations)
    numbers, keys = [], []
    start = 0
    for rows in batches(table):
        ngrams = splitter(rows)
        with_text = np.flatnonzero(ngrams.counts)
        signatures = _signatures(ngrams, settings)[with_text, : number * width]
        signatures = signatures.reshape(len(with_text), number, width)
        folded = np.zeros((len(with_text), number), np.uint64)
        for k in range(width):
            folded = mix(folded ^ signatures[:, :, k])
        numbers.append(with_text + start)
        keys.append(folded.T)
        start += len(rows)
    if not numbers:
        return np.zeros(0, np.int64), np.zeros((number, 0), np.uint64)
    return np.concatenate(numbers), np.concatenate(keys, axis=1)


def _signatures(ngrams: Ngrams, settings: NearDeduplication) -> NDArray[np.uint64]:
    """Return MinHash signatures [rows, permutations]."""
    from rensa import RMinHash

    matrix = RMinHash.digest_matrix_from_flat_token_hashes(
        ngrams.hashes, ngrams.starts.astype(np.uint64), settings.permutations, settings.seed
    )
    return np.array(matrix.to_rows(), np.uint64).reshape(-1, settings.permutations)


def _buckets(numbers: NDArray[np.int64], keys: NDArray[np.uint64]) -> Iterator[NDArray[np.int64]]:
    """Yield the numbers of the rows that share a band, ascending, for each key that at least two rows have."""
    for band in keys:
        order = np.argsort(band, kind="stable")
        edges = np.flatnonzero(np.diff(band[order])) + 1
        starts, ends = np.concatenate([[0], edges]), np.concatenate([edges, [len(order)]])
        several = ends - starts > 1
        for start, end in zip(starts[several].tolist(), ends[several].tolist(), strict=True):
            yield numbers[order[start:end]]


def _ngrams_of(table: Table, splitter: Splitter, numbers: NDArray[np.int64]) -> Iterator[NDArray[np.uint64]]:
    """Yield the distinct n-grams of the rows with the given numbers."""
    selected = set(numbers.tolist())
    for rows in batches(row for number, row in enumerate(table) if number in selected):
        ngrams = splitter(rows)
        yield from (np.unique(ngrams.of(index)) for index in range(len(rows)))


def batches(rows: Iterable[Any]) -> Iterator[list[Any]]:
    """Yield lists of at most BATCH rows."""
    rows = iter(rows)
    while batch := list(itertools.islice(rows, BATCH)):
        yield batch
