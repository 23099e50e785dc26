"""Suggest spellings."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

FEW = 8
"""Most words that a help line lists."""


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known spelling closest to a word, or None if none is close."""
    matches = difflib.get_close_matches(word, sorted(known), n=3, cutoff=0.7)
    # The same letters in another order are more likely meant than another letter: lroa is lora, not road.
    swapped = (match for match in matches if sorted(match) == sorted(word))
    return next(swapped, matches[0] if matches else None)


def suggestion(word: str, known: Iterable[str], listed_in: str) -> str:
    """Return the help for an unknown word: the closest one, all if they are few, or the nearest and what lists all."""
    names = sorted(known)
    if close := nearest(word, names):
        return f"did you mean {close!r}?"
    if len(names) <= FEW:
        return f"known: {', '.join(names) or 'none'}"
    some = difflib.get_close_matches(word, names, n=3, cutoff=0.5)
    return f"{'similar: ' + ', '.join(some) + '; ' if some else ''}{listed_in} lists all {len(names)}"
