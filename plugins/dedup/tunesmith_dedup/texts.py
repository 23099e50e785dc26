"""Extract the texts of rows and hash their n-grams."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

SPEAKER = ("role", "from")
"""Keys of a message that name its speaker."""
WORD = re.compile(r"\w+")
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio; odd, so that multiplying loses no bits
CACHED_WORDS = 1_000_000


def texts(row: Mapping[str, Any]) -> Iterator[str]:
    """Yield all texts of a row, at any depth, in the order of its columns.

    System messages and the names of speakers are left out, because many rows share them.
    """
    waiting = list(row.values())[::-1]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, Mapping):
            if not any(value.get(key) == "system" for key in SPEAKER):
                waiting += [v for k, v in value.items() if k not in SPEAKER][::-1]
        elif isinstance(value, list | tuple):
            waiting += value[::-1]


class _Words(dict[str, int]):
    """A cache from words to their 64-bit hashes."""

    def __missing__(self, word: str) -> int:
        if len(self) >= CACHED_WORDS:
            self.clear()
        digest = blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        self[word] = value = int.from_bytes(digest, "little")
        return value


@dataclass
class Ngrams:
    """Hashes [N] of the n-grams of several rows. Those of row i are hashes[starts[i]:starts[i + 1]]."""

    hashes: NDArray[np.uint64]
    starts: NDArray[np.int64]

    def of(self, index: int) -> NDArray[np.uint64]:
        return self.hashes[self.starts[index] : self.starts[index + 1]]

    @property
    def counts(self) -> NDArray[np.int64]:
        return np.diff(self.starts)


@dataclass
class Splitter:
    """Split rows into n-grams: n consecutive words or characters, regardless of letter case and white space.

    Hashes depend only on the content and are the same in every process.
    """

    n: int
    unit: Literal["words", "characters"] = "words"
    punctuation: bool = True
    """Keep punctuation. If False, words consist of letters, digits and underscores."""
    short: bool = True
    """Treat a row of fewer than n units as one n-gram. If False, such a row has none."""
    cache: _Words = field(default_factory=_Words)

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> Ngrams:
        units = [self._units(row) for row in rows]
        sizes = np.fromiter(map(len, units), np.int64, len(units))
        owner = np.repeat(np.arange(len(units)), sizes)
        windows = max(len(owner) - self.n + 1, 0)
        hashes = np.zeros(windows, np.uint64)
        flat = np.concatenate(units) if units else hashes
        for k in range(self.n):
            hashes = hashes * MULTIPLIER + flat[k : k + windows]
        first = owner[:windows]
        in_one_row = first == owner[self.n - 1 :]  # begins and ends in the same row
        counts = np.bincount(first[in_one_row], minlength=len(units))
        return Ngrams(mix(hashes[in_one_row]), np.concatenate([[0], np.cumsum(counts)]))

    def _units(self, row: Mapping[str, Any]) -> NDArray[np.uint64]:
        """Return the hash of each word or character of a row."""
        words = " ".join(texts(row)).casefold()
        split = words.split() if self.punctuation else WORD.findall(words)
        if self.unit == "characters":
            codes = np.frombuffer(" ".join(split).encode("utf-32-le", "surrogatepass"), "<u4")
            hashes = mix(codes.astype(np.uint64) + np.uint64(1))
        else:
            hashes = np.fromiter(map(self.cache.__getitem__, split), np.uint64, len(split))
        if self.short and 0 < len(hashes) < self.n:
            return np.pad(hashes, (0, self.n - len(hashes)))
        return hashes


def mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Spread each bit over all 64 bits: the last step of splitmix64 (Steele, Lea and Flood 2014, figure 16)."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        values = (values ^ (values >> np.uint64(shift))) * np.uint64(factor)
    return values ^ (values >> np.uint64(31))
