"""From a raw row to messages as a chat template reads them."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from tunesmith import Row
from tunesmith.row import flaw
from tunesmith_chat import ChatDataset
from tunesmith_chat.roles import role_names

_REASONING = ("reasoning_content", "thinking", "reasoning")
"""Names of a message's reasoning; templates read the first, some the second (as in transformers 5.23)."""


class Conversation(NamedTuple):
    """A row's messages, each with a role and (but for pure tool calls) a text `content`; its tools; and the row."""

    row: Row
    messages: list[dict[str, Any]]
    tools: list[Any] | None


class Reader:
    """Reads the rows of one dataset entry."""

    def __init__(self, options: ChatDataset):
        self.field = options.field_messages
        self.field_tools = options.field_tools
        mappings = {"role": "role", "content": "content"} | options.message_property_mappings
        self._targets = set(mappings)
        self._rename = {source: target for target, source in mappings.items()}
        self._role, self._content = mappings["role"], mappings["content"]
        self._names = role_names(options.roles)

    def read(self, row: Row) -> Conversation:
        """Raises DataError naming the message and the property that can't be used."""
        raw = row.get(self.field)
        if not isinstance(raw, list):
            row.require(self.field, list)
        if not raw:
            raise row.error(self.field, "has no messages")
        messages = [self._message(row, f"{self.field}[{i}]", message) for i, message in enumerate(raw)]
        for index, message in enumerate(messages):
            for key, value in message.items():
                if why := flaw(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)):
                    raise row.error(f"{self.field}[{index}].{key}", why)
        return Conversation(row, messages, self._tools(row) if self.field_tools in row else None)

    def _message(self, row: Row, place: str, raw: Any) -> dict[str, Any]:
        if not isinstance(raw, Mapping):
            kind = type(raw).__name__
            raise row.error(place, f"is {kind}, not a mapping", "messages look like {role: user, content: Hello}")
        role, content = raw.get(self._role), raw.get(self._content)
        name = self._names.get(role) if isinstance(role, str) else None
        if not isinstance(name, str):
            raise self._bad_role(row, place, raw)
        if len(raw) == 2 and type(content) is str:
            return {"role": name, "content": content}
        message: dict[str, Any] = {}
        for key, value in raw.items():
            # A property without a value is left out, as transformers does; so is one whose name a mapping takes
            if value is not None and (key in self._rename or key not in self._targets):
                message[str(self._rename.get(key, key))] = plain(value)
        message["role"] = name
        if message.get("tool_calls"):
            self._check_calls(row, f"{place}.tool_calls", message["tool_calls"])
        if content is not None or not message.get("tool_calls"):
            message["content"] = self._text(row, place, raw)
        reasoning = next((message[key] for key in _REASONING if message.get(key) is not None), None)
        return message if reasoning is None else {"thinking": reasoning, **message, "reasoning_content": reasoning}

    def _bad_role(self, row: Row, place: str, raw: Mapping[str, Any]) -> Exception:
        role = raw.get(self._role)
        if not isinstance(role, str):
            found = ", ".join(map(str, raw)) or "none"
            help = "name the properties: message_property_mappings: {role: from, content: value}"
            problem = f"is {type(role).__name__}, not a text" if self._role in raw else f"is missing; found: {found}"
            return row.error(f"{place}.{self._role}", problem, help)
        known = sorted(self._names)
        close = difflib.get_close_matches(role.lower(), known, 1)
        help = f"did you mean {close[0]!r}? " if close else ""
        help += f"or say whose name it is: roles: {{assistant: [{role}]}}"
        return row.error(f"{place}.{self._role}", f"is {role!r}, which is no role; known: {', '.join(known)}", help)

    def _text(self, row: Row, place: str, raw: Mapping[str, Any]) -> str:
        """The content of a message: a text, or text parts put together."""
        place = f"{place}.{self._content}"
        content = raw.get(self._content)
        if isinstance(content, str):
            return str(content)
        if content is None:
            found = ", ".join(map(str, raw))
            problem = "is null" if self._content in raw else f"is missing; found: {found}"
            raise row.error(place, problem, "message_property_mappings: {content: ...} names the property")
        if not isinstance(content, list):
            raise row.error(place, f"is {type(content).__name__}, not a text")
        parts = []
        for index, part in enumerate(content):
            text = part.get("text") if isinstance(part, Mapping) and part.get("type") == "text" else None
            if not isinstance(text, str):
                kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
                raise row.error(f"{place}[{index}]", f"is a part of type {kind}; only text can be trained on")
            parts.append(text)
        return "".join(parts)

    def _check_calls(self, row: Row, place: str, calls: Any) -> None:
        """Raise DataError for tool calls that are no list of mappings, or whose arguments are text and no JSON."""
        if not isinstance(calls, list) or not all(isinstance(call, Mapping) for call in calls):
            help = 'such as [{"function": {"name": ..., "arguments": {}}}]'
            raise row.error(place, "has to be a list of calls", help)
        for index, call in enumerate(calls):
            function = call.get("function", call)
            arguments = function.get("arguments") if isinstance(function, Mapping) else None
            if isinstance(arguments, str):
                try:
                    json.loads(arguments)
                except ValueError as error:
                    raise row.error(f"{place}[{index}].function.arguments", f"is no JSON: {error}") from error

    def _tools(self, row: Row) -> list[Any] | None:
        """The row's tools: a list of JSON schemas, or the same as JSON text (columns of Parquet files hold that)."""
        value = row[self.field_tools]
        if isinstance(value, str):
            try:
                value = json.loads(value) if value.strip() else None
            except ValueError as error:
                raise row.error(self.field_tools, f"is no JSON: {error}") from error
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(tool, Mapping) for tool in value):
            raise row.error(self.field_tools, "has to be a list of JSON schemas")
        return [plain(tool) for tool in value]


def plain(value: Any) -> Any:
    """A copy out of JSON types alone; anything else, which the sandbox could not judge, becomes its type's name."""
    if value is None or type(value) in (str, int, float, bool):
        return value
    if isinstance(value, Mapping):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(plain(item) for item in value) if type(value) in (list, tuple) else list(map(plain, value))
    if isinstance(value, str):
        return str.__str__(value)
    return f"<{type(value).__name__}>"
