"""Read dialogues that are written as one text, with a marker before each turn, as lists of messages."""

from __future__ import annotations

import copy
import re
from typing import Any

from tunesmith import Row
from tunesmith_chat import ChatDataset

TEXT = "text"
"""Column with the dialogue of a conversation, unless field_messages names another."""


def with_messages(row: Row, kind: str, options: ChatDataset) -> Row:
    """Return the row with a list of messages in place of each text of a dialogue. Raise DataError.

    A pair has two of them, a labeled answer one. Of a prompt, the turns up to the last one of the user are read.
    """
    columns = {"pair": (options.field_chosen, options.field_rejected), "labelled": (options.field_completion,)}
    target = options.field_messages
    source = target if "field_messages" in options.model_fields_set else TEXT
    if kind in columns:
        changed = {column: messages_of(row, column, options) for column in columns[kind]}
    else:
        changed = {target: messages_of(row, source, options)}
    result = copy.copy(row)  # with its place
    if kind not in columns:
        del result[source]
    result.update(changed)
    marker = options.turn_markers.get("system", "").strip()
    system = row.get(options.field_system) if marker else None
    if isinstance(system, str) and system.strip().startswith(marker):
        result[options.field_system] = system.strip().removeprefix(marker).strip()
    return result


def messages_of(row: Row, column: str, options: ChatDataset) -> list[dict[str, Any]]:
    """Return the turns of a text, without white space at their ends. Raise DataError if it begins without a marker."""
    text = row.require(column)
    roles = {marker: role for role, marker in options.turn_markers.items()}
    pattern = "|".join(re.escape(marker) for marker in sorted(roles, key=len, reverse=True))
    first = next(iter(roles))
    text = first[: len(first) - len(first.lstrip())] + text.lstrip()  # the first turn may begin without a line end
    before, *parts = re.split(f"({pattern})", text)
    if before.strip() or not parts:
        markers = " or ".join(repr(marker.strip()) for marker in roles)
        message = f"must begin with {markers}, got {text.strip()[:40]!r}"
        raise row.error(
            column, message, 'write the markers: turn_markers: {user: "\\n\\nUser:", assistant: "\\n\\nBot:"}'
        )
    properties = options.message_property_mappings
    role, content = properties.get("role", "role"), properties.get("content", "content")
    turns = zip(parts[::2], parts[1::2], strict=True)
    return [{role: roles[mark], content: _without_end(turn.strip(), options.turn_end)} for mark, turn in turns]


def _without_end(turn: str, end: str | None) -> str:
    return turn.removesuffix(end).rstrip() if end else turn
