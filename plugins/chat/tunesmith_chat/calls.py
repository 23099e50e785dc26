"""Read tool calls: those of a message, a `function_call`, and messages that are calls themselves."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tunesmith import Row

CALL_ROLE = "function_call"
"""Role of a message whose content is a call as JSON text, and property of a message with one, as before tool calls."""
_SHAPE = 'for example [{"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}]'


def read_calls(row: Row, place: str, calls: Any) -> list[Any]:
    """Return tool calls whose arguments are mappings. Arguments may also be the JSON text of a mapping.

    Templates write arguments as JSON, so that text would be encoded twice. Raise DataError, with the place, for calls
    that are not a list of mappings with a name and arguments.
    """
    if not isinstance(calls, list) or not all(isinstance(call, Mapping) for call in calls):
        raise row.error(place, "must be a list of tool calls", _SHAPE)
    for index, call in enumerate(calls):
        function, at = call, f"{place}[{index}]"
        if "function" in call:
            function, at = call["function"], f"{at}.function"
        if not isinstance(function, Mapping):
            raise row.error(at, f"must be a mapping, got {_kind(function)}", _SHAPE)
        for key in ("name", "arguments"):
            if key not in function:
                problem = f"is missing; found: {', '.join(map(str, function)) or 'nothing'}"
                raise row.error(f"{at}.{key}", problem, "a call without arguments has {}" if key != "name" else _SHAPE)
        if not isinstance(function["name"], str) or not function["name"].strip():
            raise row.error(f"{at}.name", f"must be the name of a tool, got {_kind(function['name'])}", _SHAPE)
        function["arguments"] = _arguments(row, f"{at}.arguments", function["arguments"])  # type: ignore[index]
    return calls


def _arguments(row: Row, place: str, value: Any) -> Mapping[str, Any]:
    encoded = isinstance(value, str)
    if encoded:
        try:
            value = json.loads(value)
        except ValueError as error:
            raise row.error(place, f"is not valid JSON: {error}", "a call without arguments has {}") from error
    if isinstance(value, Mapping):
        return value
    if encoded and isinstance(value, str):
        raise row.error(place, "is JSON text that was encoded twice", "encode the mapping once, or write the mapping")
    problem = f"must be {'the JSON text of ' if encoded else ''}a mapping, got {_kind(value)}"
    raise row.error(place, problem, "a call without arguments has {}")


def call_message(row: Row, place: str, raw: Mapping[str, Any], role: str, content: str) -> dict[str, Any]:
    """Return a message of role `function_call` as one of the assistant with tool calls.

    role, content: the names of these properties in the data. Raise DataError if the content is not a call or a list of
    calls, as JSON text or not.
    """
    value = raw.get(content)
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            help = f'write {{"name": ..., "arguments": {{...}}}}, or map the role: roles: {{assistant: [{CALL_ROLE}]}}'
            problem = f"must be a call as JSON text, because the role is {CALL_ROLE}: {error}"
            raise row.error(f"{place}.{content}", problem, help) from error
    calls = value if isinstance(value, list) else [value]
    rest = {key: item for key, item in raw.items() if key != content}
    return {**rest, role: "assistant", "tool_calls": read_calls(row, f"{place}.{content}", list(map(wrapped, calls)))}


def wrapped(call: Any) -> Any:
    """Return a call in the form that templates read, if it is a mapping of a name and arguments only."""
    if not isinstance(call, Mapping):
        return call
    if "function" not in call:
        return {"type": "function", "function": dict(call)}
    function = call["function"]
    return {**call, "function": dict(function) if isinstance(function, Mapping) else function}


def with_calls(message: dict[str, Any]) -> dict[str, Any]:
    """Return a message with its `function_call`, if it has one, as tool calls."""
    call = message.get(CALL_ROLE)
    if not isinstance(call, Mapping) or message.get("tool_calls"):
        return message
    return {key: value for key, value in message.items() if key != CALL_ROLE} | {"tool_calls": [wrapped(call)]}


def _kind(value: Any) -> str:
    return "null" if value is None else type(value).__name__
