"""From one message of a row to one as a chat template reads it, and what is trained of it."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from tunesmith import Row
from tunesmith.files.row import flaw
from tunesmith_chat import ChatDataset
from tunesmith_chat.marks import Pieces, cut, plan_of, read_flag, read_parts, read_spans
from tunesmith_chat.roles import REASONING, REASONING_NAMES, role_names

Message = dict[str, Any]
NAMING = ("message_field_training", "message_field_training_detail", "field_thinking")
"""Keys of an entry that name a property of messages."""
_OPENING, _CLOSING = "<think>", "</think>"


class _Text(NamedTuple):
    """A text of a message, and the weights of its pieces where it has any."""

    text: str
    pieces: Pieces | None = None

    def cut(self, begin: int, stop: int) -> _Text:
        return _Text(self.text[begin:stop], cut(self.pieces, begin, stop))


class MessageReader:
    """Reads the messages of one dataset entry."""

    def __init__(self, options: ChatDataset):
        mappings = {"role": "role", "content": "content"} | options.message_property_mappings
        self._role, self._content = mappings["role"], mappings["content"]
        self._rename = {source: target for target, source in mappings.items()}
        self._names = role_names(options.roles)
        self._trained = frozenset(options.roles_to_train)
        self._flag, self._spans, self._thinking = (getattr(options, key) for key in NAMING)
        self._hidden = {*mappings} - {*mappings.values()} | {self._flag, self._spans, self._thinking}
        """Properties that no template is given: ours, and those whose name a mapping takes."""
        self._template_thinking = options.template_thinking_key
        self._split = options.split_thinking
        self.unseen = {name: key for key in NAMING if (name := getattr(options, key)) is not None}
        """Properties that the entry names -> the key that does so, as long as no message had them."""

    def read(self, row: Row, place: str, raw: Any) -> tuple[Message, Any]:
        """A message, and what is trained of it (marks.plan_of). Raises DataError."""
        if not isinstance(raw, Mapping):
            kind = type(raw).__name__
            raise row.error(place, f"is {kind}, not a mapping", "messages look like {role: user, content: Hello}")
        role, content = raw.get(self._role), raw.get(self._content)
        name = self._names.get(role) if isinstance(role, str) else None
        if not isinstance(name, str):
            raise self._bad_role(row, place, raw)
        if len(raw) == 2 and type(content) is str and not self._split:
            if why := flaw(content):
                raise row.error(f"{place}.{self._content}", why)
            return {"role": name, "content": content}, None
        return self._whole(row, place, raw, name)

    def _whole(self, row: Row, place: str, raw: Mapping[str, Any], role: str) -> tuple[Message, Any]:
        """A message that may have more than a role and content."""
        if self.unseen:
            self.unseen = {name: key for name, key in self.unseen.items() if raw.get(name) is None}
        message = self._properties(raw)
        message["role"] = role
        calls = message.get("tool_calls")
        if calls:
            message["tool_calls"] = _calls(row, f"{place}.tool_calls", calls)
        content = None if calls and raw.get(self._content) is None else self._text(row, place, raw)
        spans = self._spanned(row, place, raw, content)
        if spans is not None:
            content = spans
        thought = self._thought(row, place, raw, message)
        if self._split and role == "assistant" and content is not None:
            thought, content = self._parted(row, place, message, thought, content)
        if content is not None:
            message["content"] = content.text
        if thought is not None:
            message[REASONING] = thought.text
        message = self._named(message)
        flag = None if self._flag is None else read_flag(row, f"{place}.{self._flag}", raw.get(self._flag))
        pieces = [text and text.pieces for text in (content, thought)]
        further = bool(message.get("tool_calls")) or (REASONING in message and pieces[1] is None)
        plan = plan_of(row, place, role in self._trained, flag, pieces, spans is not None, further)
        self._check(row, place, message)
        return message, plan

    def _properties(self, raw: Mapping[str, Any]) -> Message:
        """Properties by the template's names. One without a value is left out, as transformers does."""
        kept = ((key, value) for key, value in raw.items() if value is not None and key not in self._hidden)
        return {str(self._rename.get(key, key)): plain(value) for key, value in kept}

    def _text(self, row: Row, place: str, raw: Mapping[str, Any]) -> _Text:
        """The content of a message: a text, or text parts put together."""
        place = f"{place}.{self._content}"
        content = raw.get(self._content)
        if isinstance(content, str):
            return _Text(str(content))
        if content is None:
            found = ", ".join(map(str, raw))
            problem = "is null" if self._content in raw else f"is missing; found: {found}"
            raise row.error(place, problem, "message_property_mappings: {content: ...} names the property")
        if not isinstance(content, list):
            raise row.error(place, f"is {type(content).__name__}, not a text")
        return _Text(*read_parts(row, place, content))

    def _spanned(self, row: Row, place: str, raw: Mapping[str, Any], content: _Text | None) -> _Text | None:
        """The content with the pieces that its spans make, where the message has any."""
        if self._spans is None:
            return None
        text, parts = content or ("", None)
        pieces = read_spans(row, f"{place}.{self._spans}", raw.get(self._spans), text)
        if pieces and parts:
            raise row.error(f"{place}.{self._spans}", f"is there, and parts of {self._content} are weighted too")
        return _Text(text, pieces) if pieces else None

    def _thought(self, row: Row, place: str, raw: Mapping[str, Any], message: Message) -> _Text | None:
        """The reasoning of a message where it is a text, or text parts; anything else is the template's affair."""
        name = next((name for name in REASONING_NAMES if message.get(name) is not None), REASONING)
        value = message.get(name)
        if self._thinking is not None and raw.get(self._thinking) is not None:
            name, value = self._thinking, raw[self._thinking]
            if not isinstance(value, str | list):
                raise row.error(f"{place}.{name}", f"is {type(value).__name__}, not a text")
        if isinstance(value, list):
            read = _Text(*read_parts(row, f"{place}.{name}", value))
            if name != self._thinking:
                message[name] = read.text
            return read
        return _Text(value) if isinstance(value, str) else None

    def _parted(
        self, row: Row, place: str, message: Message, thought: _Text | None, content: _Text
    ) -> tuple[_Text | None, _Text]:
        """Reasoning taken out of the beginning of the content, and the rest of it."""
        text = content.text
        begin = len(text) - len(text.lstrip())
        stop = text.find(_CLOSING)
        if not text.startswith(_OPENING, begin) or stop < 0:
            return thought, content
        if thought is not None or REASONING in message:
            raise row.error(f"{place}.{self._content}", f"begins with {_OPENING}, and there is reasoning beside it")
        begin += len(_OPENING)
        inside = text[begin:stop]
        begin += len(inside) - len(inside.lstrip())
        rest = text[stop + len(_CLOSING) :].lstrip()
        return content.cut(begin, begin + len(inside.strip())), content.cut(len(text) - len(rest), len(text))

    def _named(self, message: Message) -> Message:
        """The message with its reasoning under each name that a template may read, as transformers does."""
        reasoning = next((message[key] for key in REASONING_NAMES if message.get(key) is not None), None)
        if reasoning is None:
            return message
        named = {} if self._template_thinking is None else {self._template_thinking: reasoning}
        return {"thinking": reasoning, **message, REASONING: reasoning, **named}

    def _check(self, row: Row, place: str, message: Message) -> None:
        for key, value in message.items():
            try:
                why = flaw(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
            except (TypeError, ValueError) as error:
                why = f"is no JSON: {error}"
            if why:
                raise row.error(f"{place}.{key}", why)

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


def _calls(row: Row, place: str, calls: Any) -> list[Any]:
    """Tool calls whose arguments are no longer JSON text: templates write them as JSON, twice if they are text.

    Raises DataError for what is no list of mappings, or arguments that are text and no JSON.
    """
    if not isinstance(calls, list) or not all(isinstance(call, Mapping) for call in calls):
        help = 'such as [{"function": {"name": ..., "arguments": {}}}]'
        raise row.error(place, "has to be a list of calls", help)
    for index, call in enumerate(calls):
        function = call.get("function", call)
        arguments = function.get("arguments") if isinstance(function, Mapping) else None
        if isinstance(arguments, str):
            try:
                value = json.loads(arguments)
            except ValueError as error:
                raise row.error(f"{place}[{index}].function.arguments", f"is no JSON: {error}") from error
            if isinstance(value, dict):
                function["arguments"] = value
    return calls


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
