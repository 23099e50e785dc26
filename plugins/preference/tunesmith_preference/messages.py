"""Read answers that are written as lists of messages: the history, and the answer."""

from __future__ import annotations

from typing import Any

from tunesmith import Row
from tunesmith.files.unread import note_properties

ROLES = ("system", "user", "assistant")
Turn = tuple[str, str]
"""Role and content."""


def conversation(row: Row, column: str) -> tuple[list[Turn], str]:
    """Return the messages before the last one, and the answer, which is the last message and the assistant's.

    Raises DataError, with the place in the list, if there are fewer than two messages or one is invalid.
    """
    messages = row.require(column, list)
    turns = [_turn(row, f"{column}[{i}]", message) for i, message in enumerate(messages)]
    if len(turns) < 2:
        help = "the last message is the answer, and the messages before it are the prompt"
        raise row.error(column, f"must have at least two messages, got {len(turns)}", help)
    role, answer = turns.pop()
    if role != "assistant":
        raise row.error(
            f"{column}[{len(turns)}].role", f"must be assistant in the last message, which is the answer, got {role}"
        )
    return turns, answer


def _turn(row: Row, place: str, message: Any) -> Turn:
    if not isinstance(message, dict):
        raise row.error(place, "must be a mapping of role and content")
    role, content = (_text(row, place, message, key) for key in ("role", "content"))
    if role not in ROLES:
        raise row.error(f"{place}.role", f"must be {', '.join(ROLES[:-1])} or {ROLES[-1]}, got {role!r:.40}")
    note_properties(row, message, ("role", "content"))
    return role, content


def _text(row: Row, place: str, message: dict[str, Any], key: str) -> str:
    if key not in message:
        raise row.error(f"{place}.{key}", f"is missing; the message has: {', '.join(map(str, message)) or 'no keys'}")
    text: str = Row({f"{place}.{key}": message[key]}, row.where).require(f"{place}.{key}")
    return text
