"""Read a message of a row in the form that a chat template takes, together with its training plan."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from tunesmith import Row
from tunesmith.files.row import flaw
from tunesmith_chat import ChatDataset
from tunesmith_chat.calls import CALL_ROLE, call_message, read_calls, with_calls
from tunesmith_chat.fields import WEIGHT, Fields
from tunesmith_chat.marks import Pieces, cut, plan_of, read_flag, read_parts, read_spans
from tunesmith_chat.padding import unpadded_message
from tunesmith_chat.roles import REASONING, REASONING_NAMES, likely_role, role_names

Message = dict[str, Any]
NAMING = ("message_field_training", "message_field_training_detail", "field_thinking")
"""Keys of an entry whose value is the name of a message property."""
_OPENING, _CLOSING = "<think>", "</think>"


class _Text(NamedTuple):
    """A text of a message, and its pieces if it has any."""

    text: str
    pieces: Pieces | None = None

    def cut(self, begin: int, stop: int) -> _Text:
        return _Text(self.text[begin:stop], cut(self.pieces, begin, stop))


class MessageReader:
    """A reader of the messages of one dataset entry."""

    def __init__(self, options: ChatDataset):
        mappings = {"role": "role", "content": "content"} | options.message_property_mappings
        self._role, self._content = mappings["role"], mappings["content"]
        self._rename = {source: target for target, source in mappings.items()}
        self._names = role_names(options.roles)
        self._trained = frozenset(options.roles_to_train)
        self._flag, self._spans, self._thinking = (getattr(options, key) for key in NAMING)
        self._hidden = {*mappings} - {*mappings.values()} | {self._flag, self._spans, self._thinking}
        """Properties that are not passed to templates: those of this plugin, and names that a mapping reuses."""
        self._template_thinking = options.template_thinking_key
        self._split = options.split_thinking
        self._tools = options.field_tools
        self._fields = Fields({self._role, self._content, *mappings.values(), *self._hidden})
        self.unseen = {name: key for key in NAMING if (name := getattr(options, key)) is not None}
        """Property that the entry names and no message has had so far -> the key that names it."""

    def read(self, row: Row, place: str, raw: Any) -> tuple[Message, Any]:
        """Return a message and its training plan (marks.plan_of). Raise DataError."""
        if not isinstance(raw, Mapping):
            kind = type(raw).__name__
            raise row.error(place, f"must be a mapping, got {kind}", "write {role: user, content: Hello}")
        role, content = raw.get(self._role), raw.get(self._content)
        name = self._names.get(role) if isinstance(role, str) else None
        if not isinstance(name, str):
            if role != CALL_ROLE:
                raise self._bad_role(row, place, raw)
            raw = call_message(row, place, raw, self._role, self._content)
            name, content = "assistant", None
        if len(raw) == 2 and type(content) is str and not self._split:
            if why := flaw(content):
                raise row.error(f"{place}.{self._content}", why)
            return {"role": name, "content": content}, None
        return self._read_all(row, place, raw, name)

    def _read_all(self, row: Row, place: str, raw: Mapping[str, Any], role: str) -> tuple[Message, Any]:
        """Return a message that may have more than a role and content, and its training plan."""
        if self.unseen:
            self.unseen = {name: key for name, key in self.unseen.items() if raw.get(name) is None}
        message = with_calls(self._properties(raw))
        if row.padded:
            message = unpadded_message(row, message, row.get(self._tools))
        message["role"] = role
        calls = message.get("tool_calls")
        if calls:
            message["tool_calls"] = read_calls(row, f"{place}.tool_calls", calls)
        content = None if calls and raw.get(self._content) is None else self._text(row, place, raw)
        spanned = self._spanned(row, place, raw, content)
        if spanned is not None:
            content = spanned
        reasoning = self._reasoning(row, place, raw, message)
        if self._split and role == "assistant" and content is not None:
            reasoning, content = self._split_reasoning(row, place, message, reasoning, content)
        if content is not None:
            message["content"] = content.text
        if reasoning is not None:
            message[REASONING] = reasoning.text
        message = self._with_reasoning_names(message)
        flag = self._read_flag(row, place, raw, message)
        self._fields.check(row, message)
        pieces = [text and text.pieces for text in (content, reasoning)]
        further = bool(message.get("tool_calls")) or (REASONING in message and pieces[1] is None)
        plan = plan_of(row, place, role in self._trained, flag, pieces, spanned is not None, further)
        self._check(row, place, message)
        return message, plan

    def _properties(self, raw: Mapping[str, Any]) -> Message:
        """Return the properties under the template's names, without null values (as transformers does)."""
        visible = ((key, value) for key, value in raw.items() if value is not None and key not in self._hidden)
        return {str(self._rename.get(key, key)): plain(value) for key, value in visible}

    def _read_flag(self, row: Row, place: str, raw: Mapping[str, Any], message: Message) -> bool | None:
        """Return the training flag of a message: of the property that the entry names, or OpenAI's `weight: 0`."""
        if self._flag is not None:
            return read_flag(row, f"{place}.{self._flag}", raw.get(self._flag))
        weight = message.get(WEIGHT)
        if message["role"] != "assistant" or not isinstance(weight, int | float) or weight not in (0, 1):
            return None
        del message[WEIGHT]
        return None if weight else False

    def _text(self, row: Row, place: str, raw: Mapping[str, Any]) -> _Text:
        """Return the content of a message: a text, or joined text parts. Raise DataError."""
        place = f"{place}.{self._content}"
        content = raw.get(self._content)
        if isinstance(content, str):
            return _Text(str(content))
        if content is None:
            if self._content in raw:
                help = "only an assistant message with tool_calls may have no text; write its text, or remove the row"
                raise row.error(place, "is null", help)
            names = ", ".join(map(str, raw))
            help = "name the property: message_property_mappings: {content: value}"
            raise row.error(place, f"is missing; found: {names}", help)
        if not isinstance(content, list):
            raise row.error(place, f"must be a string, got {type(content).__name__}")
        return _Text(*read_parts(row, place, content))

    def _spanned(self, row: Row, place: str, raw: Mapping[str, Any], content: _Text | None) -> _Text | None:
        """Return the content with the pieces of its spans, or None if the message has no spans."""
        if self._spans is None:
            return None
        text, parts = content or ("", None)
        pieces = read_spans(row, f"{place}.{self._spans}", raw.get(self._spans), text)
        if pieces and parts:
            raise row.error(f"{place}.{self._spans}", f"is set, but parts of {self._content} have weights too")
        return _Text(text, pieces) if pieces else None

    def _reasoning(self, row: Row, place: str, raw: Mapping[str, Any], message: Message) -> _Text | None:
        """Return the reasoning of a message if it is a text or text parts. Other values reach the template as is."""
        name = next((name for name in REASONING_NAMES if message.get(name) is not None), REASONING)
        value = message.get(name)
        if self._thinking is not None and raw.get(self._thinking) is not None:
            name, value = self._thinking, raw[self._thinking]
            if not isinstance(value, str | list):
                raise row.error(f"{place}.{name}", f"must be a string, got {type(value).__name__}")
        if isinstance(value, list):
            reasoning = _Text(*read_parts(row, f"{place}.{name}", value))
            if name != self._thinking:
                message[name] = reasoning.text
            return reasoning
        return _Text(value) if isinstance(value, str) else None

    def _split_reasoning(
        self, row: Row, place: str, message: Message, reasoning: _Text | None, content: _Text
    ) -> tuple[_Text | None, _Text]:
        """Split reasoning in think tags off the beginning of the content. Return the reasoning and the rest."""
        text = content.text
        begin = len(text) - len(text.lstrip())
        stop = text.find(_CLOSING)
        if not text.startswith(_OPENING, begin) or stop < 0:
            return reasoning, content
        if reasoning is not None or REASONING in message:
            key = f"{place}.{self._content}"
            raise row.error(key, f"begins with {_OPENING}, but the message already has reasoning")
        begin += len(_OPENING)
        inside = text[begin:stop]
        begin += len(inside) - len(inside.lstrip())
        rest = text[stop + len(_CLOSING) :].lstrip()
        return content.cut(begin, begin + len(inside.strip())), content.cut(len(text) - len(rest), len(text))

    def _with_reasoning_names(self, message: Message) -> Message:
        """Return the message with its reasoning under each name that a template may read, as transformers does."""
        reasoning = next((message[key] for key in REASONING_NAMES if message.get(key) is not None), None)
        if reasoning is None:
            return message
        own = {} if self._template_thinking is None else {self._template_thinking: reasoning}
        return {"thinking": reasoning, **message, REASONING: reasoning, **own}

    def _check(self, row: Row, place: str, message: Message) -> None:
        for key, value in message.items():
            try:
                why = flaw(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
            except (TypeError, ValueError) as error:
                why = f"is not a JSON value: {error}"
            if why:
                raise row.error(f"{place}.{key}", why)

    def _bad_role(self, row: Row, place: str, raw: Mapping[str, Any]) -> Exception:
        role = raw.get(self._role)
        if not isinstance(role, str):
            names = ", ".join(map(str, raw)) or "none"
            help = "name the properties: message_property_mappings: {role: from, content: value}"
            problem = f"is missing; found: {names}"
            if self._role in raw:
                problem = f"must be a string, got {type(role).__name__}"
            return row.error(f"{place}.{self._role}", problem, help)
        known = sorted(self._names)
        close = difflib.get_close_matches(role.lower(), known, 1)
        help = f"did you mean {close[0]!r}? Otherwise, " if close else ""
        help += f"map it to its role: roles: {{{likely_role(role)}: [{role}]}}"
        return row.error(f"{place}.{self._role}", f"unknown role {role!r}; known: {', '.join(known)}", help)


def plain(value: Any) -> Any:
    """Return a copy in plain JSON types. Replace other objects, which the sandbox can't check, with the type's name."""
    if value is None or type(value) in (str, int, float, bool):
        return value
    if isinstance(value, Mapping):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(plain(item) for item in value) if type(value) in (list, tuple) else list(map(plain, value))
    if isinstance(value, str):
        return str.__str__(value)
    return f"<{type(value).__name__}>"
