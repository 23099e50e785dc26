"""Read what a reward function returned: one number per completion, or None where it does not apply."""

from __future__ import annotations

import inspect
import math
from typing import Any


class WrongScores(Exception):
    """A function returned an unusable value. `index` is the number of the completion with that score."""

    def __init__(self, message: str, help: str = "", index: int | None = None):
        super().__init__(message)
        self.help, self.index = help, index


def plain(result: Any, number: int) -> list[float | None]:
    """Return scores as floats, from a list, a tuple, or an array or tensor of one dimension. Raises WrongScores."""
    help = f"return a list of {number} numbers, one per completion, or None where the reward does not apply"
    if inspect.isgenerator(result) or inspect.isasyncgen(result):
        raise WrongScores("it returned a generator, not a list", "collect the scores in a list, and return it")
    if hasattr(result, "tolist"):  # of numpy, torch, pandas; nothing of them is imported here
        shape = tuple(getattr(result, "shape", ()))
        if len(shape) != 1:
            raise WrongScores(f"it returned an array of shape {shape}, not ({number},)", help)
        result = result.tolist()
    if not isinstance(result, list | tuple):
        raise WrongScores(f"it returned {_words(result)}, not a list with one score per completion", help)
    if len(result) != number:
        raise WrongScores(f"it returned {len(result)} scores for {number} completions", help)
    return [_score(value, index) for index, value in enumerate(result)]


def _score(value: Any, index: int) -> float | None:
    if value is None:
        return None
    if hasattr(value, "item") and not isinstance(value, str):
        if getattr(value, "size", 1) != 1 and not callable(getattr(value, "size", None)):
            raise WrongScores(f"it returned an array as the score of a completion: {value!r:.80}", index=index)
        try:
            value = value.item()
        except (ValueError, RuntimeError, TypeError) as error:
            raise WrongScores(f"it returned {_words(value)} as a score: {error}", index=index) from None
    if not isinstance(value, int | float):
        raise WrongScores(f"it returned {_words(value)} as a score, not a number", "return a number, or None", index)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if math.isnan(number):
        raise WrongScores("it returned NaN", "return None where the reward does not apply", index)
    if math.isinf(number):
        raise WrongScores("it returned an infinite score", "return a finite number", index)
    return number


def _words(value: Any) -> str:
    return "None" if value is None else f"{type(value).__name__} {value!r:.40}"
