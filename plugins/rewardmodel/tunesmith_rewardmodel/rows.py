"""Read rows with answers to score: single answers, pairs, and solutions in steps."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunesmith import DataError, Problem

MOST_PROBLEMS = 20
"""Problems that are listed; a file with another format would have one in each row."""
SHAPES = (
    'write {"prompt": ..., "completion": ...}, {"messages": [...]}, or {"prompt": ..., "chosen": ..., "rejected": ...}'
)
Prompt = str | list[dict[str, Any]]


@dataclass(frozen=True)
class Answers:
    """A row with one or more answers to one prompt.

    Args:
        where: file:line.
        prompt: a text or messages; empty messages if an answer has the full conversation.
        answers: the answer by the name of its score: score, chosen and rejected, or a number.
        columns: all columns of the row.
    """

    where: str
    prompt: Prompt
    answers: Mapping[str | int, str | list[dict[str, Any]]]
    columns: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Steps:
    """A row with a solution in steps, and their labels if the row has some."""

    where: str
    prompt: str
    steps: list[str]
    labels: list[bool] | None
    columns: dict[str, Any]


def read_rows(path: Path, separator: str | None) -> list[Answers] | list[Steps]:
    """Return the rows of a JSON Lines file: with a separator of steps, solutions in steps; otherwise, answers.

    Raises DataError with the lines of all rows that can't be scored.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror}", where="command line", code="no-file") from error
    rows: list[Any] = []
    problems: list[Problem] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            row = _row(line, where)
            rows.append(_answers(row, where) if separator is None else _steps(row, where, separator))
        except DataError as error:
            problems += error.problems
    if problems:
        more = len(problems) - MOST_PROBLEMS
        rest = [Problem(f"{more:,} more rows have problems", code="row")] if more > 0 else []
        raise DataError([*problems[:MOST_PROBLEMS], *rest])
    if not rows:
        raise DataError("the file contains no rows", where=str(path), code="no-rows")
    return rows


def _row(line: bytes, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"not JSON: {error}", where=where, code="row") from None
    if not isinstance(row, dict):
        raise DataError(f"must be a JSON object, got {type(row).__name__}", where=where, code="row")
    return row


def _answers(row: dict[str, Any], where: str) -> Answers:
    names: dict[str | int, Any] = {}
    if "chosen" in row or "rejected" in row:
        names = {"chosen": row.get("chosen"), "rejected": row.get("rejected")}
    elif isinstance(row.get("completions"), list):
        names = dict(enumerate(row["completions"]))
    elif "completion" in row:
        names = {"score": row["completion"]}
    elif _is_conversation(row.get("messages")):
        return Answers(where, [], {"score": row["messages"]}, row)
    if not names:
        problem = f"the row has no answer; its columns: {', '.join(row) or 'none'}"
        raise DataError(problem, where=where, help=SHAPES, code="row")
    for name, answer in names.items():
        if not (isinstance(answer, str) or _is_conversation(answer)):
            column = f"completions[{name}]" if isinstance(name, int) else "completion" if name == "score" else name
            raise DataError(f"{column} must be a text or a list of messages", where=where, help=SHAPES, code="row")
    prompt = row.get("prompt", row.get("messages", []))
    if not (isinstance(prompt, str) or prompt == [] or _is_conversation(prompt)):
        raise DataError("prompt must be a text or a list of messages", where=where, help=SHAPES, code="row")
    if not prompt and any(isinstance(answer, str) for answer in names.values()):
        raise DataError("the row has no prompt", where=where, help=SHAPES, code="row")
    if "prompt" not in row and prompt:  # a row of generate: the answer follows the last message of the user
        while prompt and prompt[-1]["role"] == "assistant":
            prompt = prompt[:-1]
    return Answers(where, prompt, names, row)


def _steps(row: dict[str, Any], where: str, separator: str) -> Steps:
    prompt, steps = row.get("prompt"), row.get("completions")
    if steps is None and isinstance(row.get("completion"), str):
        steps = [step for step in row["completion"].split(separator) if step.strip()]
    texts = isinstance(steps, list) and steps and all(isinstance(step, str) and step for step in steps)
    if not isinstance(prompt, str) or not prompt or not texts:
        help = 'write {"prompt": "...", "completions": ["step", "step"]}, or "completion" with the steps in one text'
        raise DataError("the row has no prompt with steps", where=where, help=help, code="row")
    labels = row.get("labels")
    if labels is not None and not (
        isinstance(labels, list) and len(labels) == len(steps) and all(label in (0, 1) for label in labels)
    ):
        raise DataError(f"labels must be true or false for each of {len(steps)} steps", where=where, code="row")
    return Steps(where, prompt, list(steps), None if labels is None else [bool(label) for label in labels], row)


def _is_conversation(value: Any) -> bool:
    right = isinstance(value, Sequence) and not isinstance(value, str)
    return right and bool(value) and all(isinstance(m, dict) and {"role", "content"} <= m.keys() for m in value)
