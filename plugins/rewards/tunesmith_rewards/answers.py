"""Rewards for answers that equal that of the row, and for texts that match regular expressions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tunesmith.completions import Completion, column_of, text_of
from tunesmith_rewards.extract import captured, checked, compiled, extracted, gold_texts, normalized


def exact_match(
    completions: Sequence[Completion],
    *,
    column: str = "answer",
    extract: str | None = None,
    extract_gold: str | None = None,
    ignore_case: bool = False,
    ignore_whitespace: bool = True,
    ignore_punctuation: bool = False,
    **columns: Any,
) -> list[float | None]:
    """Return 1.0 for each completion whose answer equals that of its row, and 0.0 for others.

    Args:
        completions: texts, or conversations.
        column: the column with the answer: a text, a number, or a list of alternatives. Rows without it abstain.
        extract: where the answer of the completion is: "boxed" for the last \\boxed{}, "####" for what follows the last
            #### in its line, or a regular expression, whose last match counts. By default, it is the whole text.
        extract_gold: the same for the column. By default `extract`, or the whole text where that finds nothing. If it
            is set, rows in which it finds nothing abstain.
        ignore_case: compare without regard to case.
        ignore_whitespace: ignore whitespace at both ends, and the kind and number of whitespace characters within.
        ignore_punctuation: ignore punctuation, but not the signs and decimal points of numbers.

    Raises ValueError for an invalid regular expression.
    """
    how = checked(extract, "extract")
    how_gold = how if extract_gold is None else checked(extract_gold, "extract_gold")
    ignored = ignore_case, ignore_whitespace, ignore_punctuation

    def score(text: str, value: Any) -> float | None:
        golds: set[str] = set()
        for gold in gold_texts(value):
            answer = extracted(gold, how_gold)
            if answer is None and extract_gold is None:
                answer = gold
            if answer is not None:
                golds.add(normalized(answer, *ignored))
        if not golds:
            return None
        answer = extracted(text, how)
        return float(answer is not None and normalized(answer, *ignored) in golds)

    values = column_of(columns, column, completions)
    return [score(text_of(completion), value) for completion, value in zip(completions, values, strict=True)]


def regex(
    completions: Sequence[Completion],
    *,
    pattern: str | list[str],
    full: bool = False,
    ignore_case: bool = False,
    column: str | None = None,
    **columns: Any,
) -> list[float | None]:
    """Return the share of patterns that each completion matches: 0.0 or 1.0 for one pattern.

    Args:
        completions: texts, or conversations.
        pattern: a regular expression of Python, or a list of them. A dot matches line breaks too.
        full: the pattern has to match the whole text, without whitespace at its ends, and not a part of it.
        ignore_case: match without regard to case.
        column: if it is set, the first group of the last match has to equal the value of this column, or one of a list,
            without whitespace at both ends. Rows without it abstain.

    Raises ValueError for an invalid regular expression, or for no pattern.
    """
    if isinstance(pattern, list) and not all(isinstance(one, str) for one in pattern):
        raise ValueError(f"pattern: {pattern} must be texts: write each in quotes")
    patterns = [compiled(one, "pattern", ignore_case) for one in ([pattern] if isinstance(pattern, str) else pattern)]
    if not patterns:
        raise ValueError("pattern is empty: write a regular expression, or a list of them")

    def matches(text: str, expected: list[str] | None) -> float:
        count = 0
        for one in patterns:
            match = one.fullmatch(text.strip()) if full else next(reversed(list(one.finditer(text))), None)
            count += match is not None and (expected is None or captured(match).strip() in expected)
        return count / len(patterns)

    if column is None:
        return [matches(text_of(completion), None) for completion in completions]
    golds = [[text.strip() for text in gold_texts(value)] for value in column_of(columns, column, completions)]
    return [
        matches(text_of(completion), expected) if expected else None
        for completion, expected in zip(completions, golds, strict=True)
    ]
