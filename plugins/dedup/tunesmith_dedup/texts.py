"""What of a row is compared: its texts, as words or characters, and hashes of its n-grams."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

SPEAKER = ("role", "from")
"""Keys of a message that say who speaks."""
WORD = re.compile(r"\w+")
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd, so that no unit of an n-gram loses bits
KNOWN_WORDS = 1_000_000


def texts(row: Mapping[str, Any]) -> Iterator[str]:
    """Every text in a row, in the order of its columns, at any depth.

    Messages of the system and the names of speakers are left out: rows that share them are not alike for it.
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
    """Word -> 64 bits; those already met are looked up."""

    def __missing__(self, word: str) -> int:
        if len(self) >= KNOWN_WORDS:
            self.clear()
        hash = blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8)
        self[word] = value = int.from_bytes(hash.digest(), "little")
        return value


@dataclass
class Ngrams:
    """Hashes [N] of the n-grams of some rows, one row after the other; those of row i are starts[i]:starts[i + 1]."""

    hashes: NDArray[np.uint64]
    starts: NDArray[np.int64]

    def of(self, index: int) -> NDArray[np.uint64]:
        return self.hashes[self.starts[index] : self.starts[index + 1]]

    @property
    def counts(self) -> NDArray[np.int64]:
        return np.diff(self.starts)


@dataclass
class Splitter:
    """Makes n-grams of rows: n words or characters that follow each other, letter case and white space aside.

    Hashes are of the content alone, the same in every process. A row of fewer than n words has one n-gram, itself, if
    `short`, and else none.
    """

    n: int
    unit: Literal["words", "characters"] = "words"
    punctuation: bool = True
    """Whether marks count; without them, words are what letters, digits and underscores make."""
    short: bool = True
    known: _Words = field(default_factory=_Words)

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
        whole = first == owner[self.n - 1 :]  # begins and ends in the same row
        counts = np.bincount(first[whole], minlength=len(units))
        return Ngrams(mixed(hashes[whole]), np.concatenate([[0], np.cumsum(counts)]))

    def _units(self, row: Mapping[str, Any]) -> NDArray[np.uint64]:
        """A hash of each word or character of a row."""
        words = " ".join(texts(row)).casefold()
        split = words.split() if self.punctuation else WORD.findall(words)
        if self.unit == "characters":
            codes = np.frombuffer(" ".join(split).encode("utf-32-le", "surrogatepass"), "<u4")
            found = mixed(codes.astype(np.uint64) + np.uint64(1))
        else:
            found = np.fromiter(map(self.known.__getitem__, split), np.uint64, len(split))
        if self.short and 0 < len(found) < self.n:
            return np.pad(found, (0, self.n - len(found)))
        return found


def mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Spread every bit over all 64: the last step of splitmix64 (Steele, Lea and Flood 2014, figure 16)."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        values = (values ^ (values >> np.uint64(shift))) * np.uint64(factor)
    return values ^ (values >> np.uint64(31))
