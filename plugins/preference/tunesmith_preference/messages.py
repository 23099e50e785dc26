"""Answers that are written as a list of messages: what was said before, and the answer."""

from __future__ import annotations

from typing import Any

from tunesmith import Row

ROLES = ("system", "user", "assistant")
Turn = tuple[str, str]
"""Role and content."""


def conversation(row: Row, column: str) -> tuple[list[Turn], str]:
    """The messages before the last, and the answer, which is the last and the assistant's.

    Raises DataError, with the place in the list, where there is no message before it or one can't be read.
    """
    messages = row.require(column, list)
    turns = [_turn(row, f"{column}[{i}]", message) for i, message in enumerate(messages)]
    if len(turns) < 2:
        help = "the last message is the answer, and those before it are the prompt"
        raise row.error(column, f"has {len(turns)} message{'' if turns else 's'}, not two or more", help)
    role, answer = turns.pop()
    if role != "assistant":
        raise row.error(f"{column}[{len(turns)}].role", f"is {role}: the last message is the assistant's answer")
    return turns, answer


def _turn(row: Row, place: str, message: Any) -> Turn:
    if not isinstance(message, dict):
        raise row.error(place, "is no mapping of role and content")
    role, content = (_text(row, place, message, key) for key in ("role", "content"))
    if role not in ROLES:
        raise row.error(f"{place}.role", f"is {role!r:.40}, not {', '.join(ROLES[:-1])} or {ROLES[-1]}")
    return role, content


def _text(row: Row, place: str, message: dict[str, Any], key: str) -> str:
    if key not in message:
        raise row.error(f"{place}.{key}", f"is missing; found: {', '.join(map(str, message)) or 'nothing'}")
    text: str = Row({f"{place}.{key}": message[key]}, row.where).require(f"{place}.{key}")
    return text
