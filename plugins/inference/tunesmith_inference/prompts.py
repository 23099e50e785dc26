"""Read the prompts of a file: JSON Lines with a text or a conversation in each row, or plain lines."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunesmith import DataError, Problem

FIELDS = ("messages", "prompt")
"""The columns that contain a prompt, if the user names none."""
ROLES = {"human": "user", "gpt": "assistant", "model": "assistant", "bot": "assistant"}
"""Roles under other names -> the names that chat templates know."""
MOST_PROBLEMS = 20
"""Problems that are listed; a file with another format would have one in each row."""


@dataclass(frozen=True)
class PromptRow:
    """A prompt and the row that it comes from.

    Args:
        where: file:line.
        prompt: a text, or the messages up to the answer.
        tools: the JSON schemas of the tools that the prompt describes.
        columns: all columns of the row.
    """

    where: str
    prompt: str | list[dict[str, Any]]
    tools: list[dict[str, Any]] | None = None
    columns: dict[str, Any] = field(default_factory=dict)


def read_prompts(path: Path, column: str | None = None) -> list[PromptRow]:
    """Return the prompts of a file: each line of .txt, or each row of JSON Lines.

    Args:
        column: the column of the prompt; by default, the one of `messages` and `prompt` that a row has.

    Raises DataError with the lines of all rows without a usable prompt.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror}", where="command line", code="no-file") from error
    plain = path.suffix.lower() == ".txt"
    rows, problems = [], []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            rows.append(_plain(line, f"{path}:{number}") if plain else _row(line, f"{path}:{number}", column))
        except DataError as error:
            problems += error.problems
    if problems:
        raise problems_of(problems)
    if not rows:
        raise DataError("there are no prompts", where=str(path), code="no-rows")
    return rows


def problems_of(problems: Sequence[Problem]) -> DataError:
    """Return an error with the first problems, and the number of the others."""
    shown = list(problems[:MOST_PROBLEMS])
    if more := len(problems) - len(shown):
        shown.append(Problem(f"{more:,} more rows have problems", code="row"))
    return DataError(shown)


def _text(line: bytes, where: str) -> str:
    try:
        return line.decode("utf-8").rstrip("\r")
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8: byte {error.start}", where=where, code="row") from None


def _plain(line: bytes, where: str) -> PromptRow:
    text = _text(line, where)
    return PromptRow(where, text, columns={"prompt": text})


def _row(line: bytes, where: str, column: str | None) -> PromptRow:
    try:
        row = json.loads(_text(line, where))
    except (ValueError, RecursionError) as error:
        help = "write one JSON object per line, or name a .txt file with one prompt per line"
        raise DataError(f"not JSON: {error}", where=where, help=help, code="row") from None
    if not isinstance(row, dict):
        raise DataError(f"must be a JSON object, got {type(row).__name__}", where=where, code="row")
    present = [name for name in ((column,) if column else FIELDS) if row.get(name) is not None]
    if len(present) != 1:
        wanted = f"no column {column!r}" if column else "neither messages nor prompt"
        problem = f"has {wanted}; its columns: {', '.join(row) or 'none'}"
        if present:
            problem = f"has {' and '.join(present)}, and either may be the prompt"
        help = "name the column of the prompt: --field NAME"
        raise DataError(f"the row {problem}", where=where, help=help, code="row")
    prompt = row[present[0]]
    tools = row.get("tools") if isinstance(row.get("tools"), list) else None
    return PromptRow(where, prompt_of(prompt, present[0], where), tools or None, row)


def prompt_of(value: Any, column: str, where: str) -> str | list[dict[str, Any]]:
    """Return a text, or the messages before the last answer. Raises DataError for another value."""
    if isinstance(value, str):
        if not value:
            raise DataError(f"{column} is empty", where=where, code="row")
        return value
    if not isinstance(value, list):
        message = f"{column} must be a text or a list of messages, got {type(value).__name__}"
        raise DataError(message, where=where, code="row")
    messages = [_message(one, f"{column}[{number}]", where) for number, one in enumerate(value)]
    while messages and messages[-1]["role"] == "assistant":
        messages.pop()
    if not messages:
        help = 'write {"role": "user", "content": "..."} before the answer'
        raise DataError(f"{column} has no message that asks for an answer", where=where, help=help, code="row")
    return messages


def _message(value: Any, name: str, where: str) -> dict[str, Any]:
    """Return a message with `role` and `content`; those of `from` and `value` are renamed."""
    if isinstance(value, Mapping):
        role, key = value.get("role", value.get("from")), "content" if "content" in value else "value"
        if isinstance(role, str) and (value.get(key) is not None or value.get("tool_calls")):
            rest = {k: v for k, v in value.items() if k not in ("role", "from", "content", "value")}
            return {"role": ROLES.get(role, role), "content": value.get(key), **rest}
    help = 'write {"role": "user", "content": "..."}'
    raise DataError(f"{name} is not a message with role and content", where=where, help=help, code="row")
