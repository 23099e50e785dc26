"""Call the functions of `trl.rewards`, which is imported only then.

TRL's functions read conversations; completions that are texts are passed as one message. Functions that TRL makes from
arguments have these as options.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

from tunesmith import EnvironmentProblem
from tunesmith.completions import Completion, column_of, text_of


def messages(completions: Sequence[Completion]) -> list[list[dict[str, str]]]:
    """Return completions as conversations of one message."""
    return [[{"role": "assistant", "content": text_of(completion)}] for completion in completions]


def with_solutions(
    function: Callable[..., list[float | None]],
    completions: Sequence[Completion],
    solutions: Sequence[Any],
    ids: Sequence[Sequence[int]] = (),
    **options: Any,
) -> list[float | None]:
    """Return the scores of a function of TRL that compares with solutions. Rows without one abstain.

    Raises EnvironmentProblem if math-verify is not installed.
    """
    if importlib.util.find_spec("math_verify") is None:
        message = "this reward of TRL compares answers with math-verify, which is not installed"
        raise EnvironmentProblem(message, help='pip install "tunesmith[trl-math]"')
    rows = [index for index, solution in enumerate(solutions) if solution is not None]
    if ids:
        options["completion_ids"] = [ids[index] for index in rows]
    texts = messages([completions[index] for index in rows])
    values = function(texts, solution=[str(solutions[index]) for index in rows], **options) if rows else []
    scores: list[float | None] = [None] * len(completions)
    for index, value in zip(rows, values, strict=True):
        scores[index] = value
    return scores


def accuracy_reward(
    completions: Sequence[Completion], *, column: str = "solution", **columns: Any
) -> list[float | None]:
    """Return 1.0 where the answer in LaTeX equals that of the column, otherwise 0.0."""
    from trl.rewards import accuracy_reward

    return with_solutions(accuracy_reward, completions, column_of(columns, column, completions))


def reasoning_accuracy_reward(
    completions: Sequence[Completion],
    *,
    column: str = "solution",
    reasoning_delimiters: list[str] | None = None,
    **columns: Any,
) -> list[float | None]:
    """Return the same for the text after the reasoning, and 0.0 where the reasoning does not end."""
    from trl.rewards import reasoning_accuracy_reward

    solutions = column_of(columns, column, completions)
    return with_solutions(reasoning_accuracy_reward, completions, solutions, reasoning_delimiters=reasoning_delimiters)


def think_format_reward(completions: Sequence[Completion], **columns: Any) -> list[float]:
    """Return 1.0 for completions of the form <think>...</think>..., otherwise 0.0."""
    from trl.rewards import think_format_reward

    return think_format_reward(messages(completions))


def get_cosine_scaled_reward(
    completions: Sequence[Completion],
    completion_ids: Sequence[Sequence[int]],
    *,
    max_len: int,
    min_value_wrong: float = -1.0,
    max_value_wrong: float = -0.5,
    min_value_correct: float = 0.5,
    max_value_correct: float = 1.0,
    column: str = "solution",
    **columns: Any,
) -> list[float | None]:
    """Return a reward of correctness that depends on the length (arXiv 2502.03373, appendix C.1).

    Raises ValueError unless max_len is positive.
    """
    if max_len < 1:
        raise ValueError(f"max_len: {max_len} must be at least 1")
    from trl.rewards import get_cosine_scaled_reward

    function = get_cosine_scaled_reward(max_len, min_value_wrong, max_value_wrong, min_value_correct, max_value_correct)
    return with_solutions(function, completions, column_of(columns, column, completions), list(completion_ids))


def get_repetition_penalty_reward(
    completion_ids: Sequence[Sequence[int]], *, ngram_size: int = 3, max_penalty: float = -1.0, **columns: Any
) -> list[float]:
    """Return the penalty for repeated n-grams (arXiv 2502.03373, appendix C.2).

    Raises ValueError for an n-gram of fewer than one token, or a positive penalty.
    """
    if ngram_size < 1:
        raise ValueError(f"ngram_size: {ngram_size} must be at least 1")
    from trl.rewards import get_repetition_penalty_reward

    return list(get_repetition_penalty_reward(ngram_size, max_penalty)(list(completion_ids)))


def get_soft_overlong_punishment(
    completion_ids: Sequence[Sequence[int]], *, max_completion_len: int, soft_punish_cache: int, **columns: Any
) -> list[float]:
    """Return the penalty of DAPO for overlong completions (arXiv 2503.14476, equation 13).

    Raises ValueError unless 0 <= soft_punish_cache <= max_completion_len.
    """
    if not 0 <= soft_punish_cache <= max_completion_len:
        message = f"soft_punish_cache: {soft_punish_cache} must be from 0 to max_completion_len: {max_completion_len}"
        raise ValueError(message)
    from trl.rewards import get_soft_overlong_punishment

    return list(get_soft_overlong_punishment(max_completion_len, soft_punish_cache)(list(completion_ids)))
