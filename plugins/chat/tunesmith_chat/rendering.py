"""Check that what a conversation contains was rendered. Runs in the child process (server.py)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tunesmith_chat.roles import REASONING

Messages = Sequence[Mapping[str, Any]]
LOST = (
    "messages: text that the chat template does not write",
    "messages: reasoning after the last question that the chat template does not write",
    "messages: property 'name', which the chat template does not write",
)
"""Notice of each bit of `lost`."""
_CONTENT, _REASONING, _NAME = 1, 2, 4


def lost(messages: Messages, text: str) -> int:
    """Return what is missing in the rendered text: an index into LOST for each bit.

    Templates may trim texts, escape them as JSON, and drop the reasoning of earlier turns. None of it counts.
    """
    bits = position = 0
    for index, message in enumerate(messages):
        content = message.get("content")
        if content:
            content = content.strip()
            at = text.find(content, position)
            if at >= 0:
                position = at + len(content)
            elif not _occurs(content, text):
                bits |= _CONTENT
        if len(message) > 2:
            bits |= _of_properties(messages, index, text)
    return bits


def _of_properties(messages: Messages, index: int, text: str) -> int:
    message, bits = messages[index], 0
    name, reasoning = message.get("name"), message.get(REASONING)
    if isinstance(name, str) and not _occurs(name.strip(), text):
        bits |= _NAME
    if isinstance(reasoning, str) and not _occurs(reasoning.strip(), text):
        # Templates drop the reasoning before the last question
        asked = any(later["role"] == "user" for later in messages[index:])
        bits |= 0 if asked else _REASONING
    return bits


def _occurs(part: str, text: str) -> bool:
    """Return True if a text contains a part, or what templates make of it."""
    if part in text or any(json.dumps(part, ensure_ascii=ascii)[1:-1] in text for ascii in (False, True)):
        return True
    answer = part.rpartition("</think>")[2].strip()
    return answer in text or "".join(part.split()) in "".join(text.split())


def unwritten(messages: Messages, tools: Any, text: str) -> str | None:
    """Return what the template should have written: a tool or a call whose name the text does not have; None if all.

    A name that only a message mentions does not count.
    """
    names = list(_names(messages, tools))
    if not names:
        return None
    contents = [message["content"].strip() for message in messages if message.get("content")]
    contents = [content for content in contents if content in text]
    for name, description in names:
        mentions = sum(content.count(name) for content in contents)
        escaped = json.dumps(name)[1:-1]
        if text.count(name) <= mentions and (escaped == name or escaped not in text):
            return description
    return None


def _names(messages: Messages, tools: Any) -> Iterator[tuple[str, str]]:
    """Yield the name of each tool and call, with a description for messages."""
    for tool in tools or ():
        name = _name(tool)
        if name:
            yield name, f"the tool {name!r}"
    for index, message in enumerate(messages):
        for call in message.get("tool_calls") or ():
            name = _name(call)
            if name:
                yield name, f"the call of {name!r} in message {index}"


def _name(value: Any) -> str | None:
    function = value.get("function", value) if isinstance(value, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    return name if isinstance(name, str) and name.strip() else None
