"""Read the messages of a prompt in the form that chat templates take."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith import Row
from tunesmith.files.row import flaw, without_padding

Messages = list[dict[str, Any]]
_SHAPE = "write {role: user, content: Hello}"


def read_messages(row: Row, column: str, raw: Sequence[Any]) -> Messages:
    """Return copies of messages. Raises DataError with the message and the property that can't be used."""
    if not raw:
        raise row.error(column, "has no messages")
    return [_message(row, f"{column}[{index}]", record) for index, record in enumerate(raw)]


def _message(row: Row, place: str, raw: Any) -> dict[str, Any]:
    if not isinstance(raw, Mapping):
        raise row.error(place, f"must be a mapping, got {type(raw).__name__}", _SHAPE)
    try:
        message: dict[str, Any] = json.loads(json.dumps(without_padding(raw) if row.padded else dict(raw)))
    except (TypeError, ValueError, RecursionError) as error:
        raise row.error(place, f"must be a JSON value: {error}") from None
    role = message.get("role")
    if not isinstance(role, str) or not role:
        other = "from" in message or "value" in message
        help = "type: chat_template reads other names: message_property_mappings" if other else _SHAPE
        raise row.error(f"{place}.role", "is missing" if role is None else "must be the name of a role", help)
    _check_content(row, f"{place}.content", message)
    for index, call in enumerate(message.get("tool_calls") or ()):
        _parse_arguments(row, f"{place}.tool_calls[{index}]", call)
    return message


def _check_content(row: Row, place: str, message: dict[str, Any]) -> None:
    """Raise DataError for a content that is neither a text nor a list of parts of text."""
    content = message.get("content")
    if content is None and (message.get("tool_calls") or message.get("role") == "assistant"):
        return
    texts = [content]
    if isinstance(content, list) and content:
        parts = [part if isinstance(part, dict) else {} for part in content]
        texts = [part.get("text") if part.get("type") == "text" else None for part in parts]
    for text in texts:
        if not isinstance(text, str):
            actual = "null" if content is None else type(content).__name__
            what = f"must be a text, or a list of parts of type text, got {actual}"
            raise row.error(place, "is missing" if "content" not in message else what, _SHAPE)
        if problem := flaw(text):
            raise row.error(place, problem)


def _parse_arguments(row: Row, place: str, call: Any) -> None:
    """Parse the arguments of a call if they are JSON text, because templates write them as JSON."""
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        shape = '{"function": {"name": ..., "arguments": {}}}'
        raise row.error(place, "must be a call with the name of a function", f"write {shape}")
    if isinstance(function.get("arguments"), str):
        try:
            function["arguments"] = json.loads(function["arguments"])
        except (ValueError, RecursionError) as error:
            raise row.error(f"{place}.arguments", f"is not valid JSON: {error}") from None
