"""Compare texts: exact match, ROUGE, and the unbiased estimate of pass@k.

ROUGE is computed here: rouge-score has had no release since 2022, brings nltk, and drops all letters but a to z. For
English text without stemming, the values are the same.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from math import comb
from typing import Any

WORD = re.compile(r"[^\W_]+")
ENDS = " \t\n.,;:!?\"'`()[]{}*"


def normalized(text: str) -> str:
    """Return a text without case, repeated whitespace, and punctuation at its ends."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).strip(ENDS)


def alternatives(value: Any) -> list[str]:
    """Return the references in a column: one text or number, or a list of them."""
    return [str(one) for one in (value if isinstance(value, list) else [value]) if one is not None]


def extracted(text: str, pattern: re.Pattern[str] | None) -> str | None:
    """Return the answer in a completion: the first group of the last match; None without a match."""
    if pattern is None:
        return text
    every = list(pattern.finditer(text))
    if not every:
        return None
    last = every[-1]
    return last[1] if pattern.groups and last[1] is not None else last[0]


def matches(text: str, references: Sequence[str], pattern: re.Pattern[str] | None, normalize: bool) -> bool:
    """Return True if the answer in a completion equals a reference."""
    answer = extracted(text, pattern)
    if answer is None:
        return False
    change = normalized if normalize else str.strip
    return change(answer) in {change(reference) for reference in references}


def words(text: str) -> list[str]:
    """Return the words of a text in lower case."""
    return WORD.findall(text.lower())


def rouge_n(text: str, reference: str, n: int) -> float:
    """Return the F-measure of common n-grams of words (ROUGE-N; Lin, 2004), from 0 to 1."""
    own, other = _grams(words(text), n), _grams(words(reference), n)
    return _f_measure((own & other).total(), own.total(), other.total())


def rouge_l(text: str, reference: str) -> float:
    """Return the F-measure of the longest common subsequence of words (ROUGE-L; Lin, 2004), from 0 to 1."""
    own, other = words(text), words(reference)
    return _f_measure(_common(own, other), len(own), len(other))


def _grams(text: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(text[i : i + n]) for i in range(len(text) - n + 1))


def _common(own: Sequence[str], other: Sequence[str]) -> int:
    """Return the length of the longest common subsequence, with one row of the table at a time."""
    row = [0] * (len(other) + 1)
    for word in own:
        diagonal = 0
        for j, theirs in enumerate(other, 1):
            above = row[j]
            row[j] = diagonal + 1 if word == theirs else max(above, row[j - 1])
            diagonal = above
    return row[-1]


def _f_measure(common: int, own: int, other: int) -> float:
    return 2 * common / (own + other) if common else 0.0


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """Return the unbiased estimate of pass@k (arXiv 2107.03374, equation 1): at least one of k samples is right."""
    return 1.0 - comb(samples - correct, k) / comb(samples, k)
