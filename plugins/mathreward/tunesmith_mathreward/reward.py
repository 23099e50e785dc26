"""The reward `math`: 1.0 for a completion whose final answer is mathematically that of the row."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from typing import Any

from tunesmith.completions import Completion, column_of, text_of
from tunesmith_mathreward.checker import Checker

LONGEST = 3600.0
"""Seconds. An alarm of the system can't be infinite."""


def math(
    completions: Sequence[Completion], *, column: str = "answer", timeout: float = 5.0, **columns: Any
) -> list[float | None]:
    """Return 1.0 for each completion whose final answer equals that of its row, and 0.0 for others.

    Args:
        completions: texts, or conversations.
        column: the column with the answer: a number, LaTeX, a solution that ends with "#### 12" or contains
            \\boxed{12}, or a list of alternatives. Rows without an answer that can be parsed abstain.
        timeout: seconds for the comparison of one completion. One that takes longer scores 0.0; a row whose own answer
            takes longer abstains.

    Raises ValueError for a timeout that is not positive or too long, EnvironmentProblem if math-verify is missing.
    """
    if not 0 < timeout <= LONGEST:
        raise ValueError(f"timeout: {timeout} must be positive, and at most {LONGEST:g} seconds")
    checker = _checker(os.getpid())
    scores: list[float | None] = []
    for completion, value in zip(completions, column_of(columns, column, completions), strict=True):
        golds = value if isinstance(value, list | tuple) else [value]
        text = text_of(completion)
        parts = [checker.score(str(gold), text, timeout) for gold in golds if gold is not None]
        scores.append(max((part for part in parts if part is not None), default=None))
    return scores


@functools.cache
def _checker(process_id: int) -> Checker:
    """Return the checker of this process: a fork may not share the pipes of its parent's."""
    return Checker()
