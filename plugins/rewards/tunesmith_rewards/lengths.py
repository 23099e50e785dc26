"""Rewards for the length of completions, and penalties for overlong and repetitive ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tunesmith.completions import Completion, text_of

UNITS = ("tokens", "characters", "words")


def units(completions: Sequence[Completion], completion_ids: Sequence[Sequence[int]], unit: str) -> list[Sequence[Any]]:
    """Return the tokens, characters or words of each completion. Raise ValueError for another unit."""
    if unit not in UNITS:
        raise ValueError(f"unit: {unit!r}: write tokens, characters or words")
    if unit == "tokens":
        return list(completion_ids)
    texts = map(text_of, completions)
    return [text.split() if unit == "words" else text for text in texts]


def length(
    completions: Sequence[Completion],
    completion_ids: Sequence[Sequence[int]],
    *,
    minimum: int | None = None,
    maximum: int | None = None,
    target: int | None = None,
    soft: int = 0,
    unit: str = "tokens",
    **columns: Any,
) -> list[float]:
    """Return 1.0 for each completion of an allowed length, less for others.

    Args:
        completions: texts, or conversations.
        completion_ids: their tokens.
        minimum, maximum: the smallest and largest length that scores 1.0.
        target: the only length that scores 1.0, instead of a minimum and a maximum.
        soft: the score falls linearly to 0.0 over this many units outside the allowed lengths. With 0, it is 0.0 there;
            for a target, 0 stands for the target itself.
        unit: tokens, characters or words.

    Raises ValueError for lengths that contradict each other, or for none.
    """
    if (target is None) == (minimum is None and maximum is None):
        raise ValueError("write either target, or minimum or maximum or both")
    if target is not None:
        low, high, soft = target, target, soft or target
    else:
        low, high = minimum or 0, maximum
    if low < 0 or soft < 0 or (target is not None and target < 1):
        raise ValueError("minimum and soft must be at least 0, and target at least 1")
    if high is not None and high < low:
        raise ValueError(f"minimum: {low} is larger than maximum: {high}")

    def score(size: int) -> float:
        excess = max(low - size, 0 if high is None else size - high, 0)
        return max(0.0, 1 - excess / soft) if soft else float(not excess)

    return [score(len(parts)) for parts in units(completions, completion_ids, unit)]


def soft_overlong(
    completion_ids: Sequence[Sequence[int]], *, max_completion_length: int, cache: int, **columns: Any
) -> list[float]:
    """Return the penalty of DAPO for overlong completions, from 0.0 down to -1.0 (arXiv 2503.14476, equation 13).

    Args:
        completion_ids: the tokens of the completions.
        max_completion_length: the length in tokens above which the penalty is -1.
        cache: the penalty grows linearly over the last `cache` tokens below max_completion_length.

    Raises ValueError unless 0 < cache <= max_completion_length.
    """
    if not 0 < cache <= max_completion_length:
        raise ValueError(f"cache: {cache} must be from 1 to max_completion_length: {max_completion_length}")
    free = max_completion_length - cache
    return [max(-1.0, min(0.0, (free - len(tokens)) / cache)) for tokens in completion_ids]


def repetition_penalty(
    completions: Sequence[Completion],
    completion_ids: Sequence[Sequence[int]],
    *,
    ngram: int = 3,
    max_penalty: float = -1.0,
    unit: str = "tokens",
    **columns: Any,
) -> list[float]:
    """Return `max_penalty` times the share of repeated n-grams of each completion (arXiv 2502.03373, appendix C.2).

    Args:
        completions: texts, or conversations.
        completion_ids: their tokens.
        ngram: how many units are compared at once.
        max_penalty: the penalty, at most 0, of a completion that only repeats itself.
        unit: tokens, characters or words.

    Raises ValueError for a positive penalty, or an n-gram of fewer than one unit.
    """
    if ngram < 1 or max_penalty > 0:
        raise ValueError("ngram must be at least 1, and max_penalty at most 0")

    def score(parts: Sequence[Any]) -> float:
        total = len(parts) - ngram + 1
        if total < 1:
            return 0.0
        unique = len({tuple(parts[place : place + ngram]) for place in range(total)})
        return max_penalty * (1 - unique / total) if unique < total else 0.0

    return [score(parts) for parts in units(completions, completion_ids, unit)]
