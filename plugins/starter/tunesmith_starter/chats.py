"""Layouts of conversations: messages, exchanges, dialogues in one text, function calls, and trees of messages."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tunesmith_starter.columns import Columns, Messages
from tunesmith_starter.layout import TEMPLATE, TOOLS, Entry, Layout

KNOWN = {"system", "user", "assistant", "tool", "gpt", "model", "human", "observation", "function", "function_call"}
"""Roles that type: chat_template reads without a key."""
ALIASES = {
    "assistant": ("ai", "bard", "bing", "bot", "chatbot", "chatgpt", "claude", "response"),
    "user": ("customer", "instruction", "prompter", "question"),
    "tool": ("environment", "ipython", "tool_response", "tool_result"),
    "system": ("context", "developer", "persona"),
}
"""Role -> other names that data have for it, which need the key roles."""
ANSWERING = {"assistant", "gpt", "model", "function_call", *ALIASES["assistant"]}
MARKERS = {
    "user": ("Human:", "USER:", "User:", "### Human:", "### User:", "Question:"),
    "assistant": ("Assistant:", "ASSISTANT:", "### Assistant:", "AI:", "Answer:"),
    "tool": ("FUNCTION RESPONSE:", "TOOL:", "Tool:"),
    "system": ("SYSTEM:", "System:", "### System:"),
}
"""Role -> texts that stand before its turns."""
ENDS = ("<|endoftext|>", "</s>", "<|im_end|>", "<|eot_id|>")
CHATS = ("messages", "conversations", "conversation", "chat", "dialogue", "dialog", "turns", "prompt")
EXCHANGES = (("input", "output"), ("prompt", "response"), ("question", "answer"), ("user", "assistant"),
             ("human", "assistant"), ("instruction", "response"))  # fmt: skip
"""Names of the two turns of an exchange."""
WEIGHT = "weight"
"""Property of messages, 0 or 1: whether they are trained."""
TREE = {"message_id", "parent_id", "text", "role"}
"""Columns of rows that are messages of a tree."""


def message_keys(messages: Messages) -> dict[str, Any]:
    """Return the keys that name the properties and roles of messages where they are not the usual ones."""
    names = {"role": messages.role, "content": messages.content}
    mapped = {usual: name for usual, name in names.items() if name != usual}
    keys: dict[str, Any] = {"message_property_mappings": mapped} if mapped else {}
    roles: dict[str, list[str]] = {}
    for name in messages.roles:
        role = next((role for role, others in ALIASES.items() if name.lower() in others), None)
        if name not in KNOWN and role is not None:
            roles.setdefault(role, []).append(name)
    return keys | ({"roles": roles} if roles else {})


def conversations(columns: Columns) -> Layout | None:
    """Recognize lists of messages, with tools or without. Messages that end with the user are prompts."""
    names = [*CHATS, *(name for name in columns.names if name not in CHATS)]
    name = next((name for name in names if name in columns and columns.messages(name)), None)
    messages = columns.messages(name) if name else None
    if name is None or messages is None:
        return None
    if not set(messages.roles) & ANSWERING:
        return None  # nothing to train: prompts, or roles with unknown names
    keys: dict[str, Any] = {} if name == "messages" else {"field_messages": name}
    keys |= message_keys(messages)
    comments: dict[str, str] = {}
    weights = [item.get(WEIGHT) for item in columns.mappings(name)]
    if any(weight == 0 for weight in weights) and all(weight in (None, 0, 1) for weight in weights):
        keys["message_field_training"] = WEIGHT
        comments["message_field_training"] = "0: the message is not trained"
    known = {*KNOWN, *(name for names in ALIASES.values() for name in names)}
    if unknown := [role for role in messages.roles if role not in KNOWN and role.lower() not in known]:
        comments["type"] = f"unknown roles in the data: {', '.join(unknown)}; write roles: {{assistant: [...]}}"
    tools = "tools" in columns and bool(columns.parsed("tools") or columns.mappings("tools"))
    written = _mentions_tools(columns, name, messages)
    if tools and written:
        keys["field_tools"] = None
        comments["field_tools"] = "the system messages have the tools already"
    else:
        tools = tools or "tool_calls" in messages.properties or "function_call" in messages.roles
    need = TOOLS if tools and not written else TEMPLATE
    entry = Entry({"type": "chat_template", **keys}, comments, need)
    words = f"conversations of {messages.role} and {messages.content}"
    return Layout(f"{words} with tools" if tools else words, {"conversation": entry, "prompt": entry})


def _mentions_tools(columns: Columns, name: str, messages: Messages) -> bool:
    """Return True if the first message of every row with tools is a system message that has the tools in its text."""
    firsts = [value[0] for value in columns.values(name)]
    texts = [str(item.get(messages.content)) for item in firsts if item.get(messages.role) == "system"]
    return bool(texts) and len(texts) == len(firsts) and all("<tools>" in text for text in texts)


def exchanges(columns: Columns) -> Layout | None:
    """Recognize lists of exchanges, each with what the user says and the answer, as in Capybara."""
    for name in columns.names:
        items = columns.mappings(name)
        for user, assistant in EXCHANGES:
            if items and all(isinstance(item.get(key), str) for item in items for key in (user, assistant)):
                keys: dict[str, Any] = {} if name == "conversation" else {"field_messages": name}
                if (user, assistant) != ("input", "output"):
                    keys["exchange_turns"] = {"user": user, "assistant": assistant}
                entry = Entry({"type": "chat_template.exchanges", **keys}, {}, TEMPLATE)
                return Layout(f"conversations of {user} and {assistant}", {"conversation": entry})
    return None


def dialogue_keys(columns: Columns, name: str, minimum: int = 2) -> dict[str, Any] | None:
    """Return the keys for dialogues in one text, whose turns begin with a marker; None if the column has no dialogues.

    minimum: 2 if every dialogue has an answer.
    """
    texts = columns.values(name) if columns.is_text(name) else []
    marks = {
        role: next((mark for mark in marks if any(_begins_line(mark, text) for text in texts)), None)
        for role, marks in MARKERS.items()
    }
    user, assistant = marks["user"], marks["assistant"]
    if user is None or assistant is None:
        return None
    first = [mark for mark in (user, marks["system"]) if mark is not None]
    if not all(any(text.lstrip().startswith(mark) for mark in first) for text in texts):
        return None
    if minimum > 1 and not all(_begins_line(assistant, text) for text in texts):
        return None
    markers = {role: f"\n{mark}" for role, mark in marks.items() if mark is not None}
    usual = list(markers.values()) == ["\nHuman:", "\nAssistant:"]
    apart = all(len(re.findall(r"\n\n(?:Human|Assistant):", f"\n\n{text.lstrip()}")) ==
                len(re.findall(r"\n(?:Human|Assistant):", f"\n\n{text.lstrip()}")) for text in texts)  # fmt: skip
    keys: dict[str, Any] = {} if usual and apart else {"turn_markers": markers}
    end = next((end for end in ENDS if all(end in text for text in texts)), None)
    return keys | ({"turn_end": end} if end else {})


def _begins_line(mark: str, text: str) -> bool:
    return re.search(rf"(^|\n)\s*{re.escape(mark)}", text) is not None


def dialogues(columns: Columns) -> Layout | None:
    """Recognize dialogues in one text with a marker before each turn, as in Glaive's function calls."""
    for name in columns.texts:
        keys = dialogue_keys(columns, name)
        if keys is None or not columns.complete(name):
            continue
        named = {} if name == "text" else {"field_messages": name}
        system = columns.values("system") if columns.is_text("system") else []
        mark = next((mark for mark in MARKERS["system"] if system and all(t.startswith(mark) for t in system)), None)
        if mark is not None:
            markers = keys.get("turn_markers", {"user": "\n\nHuman:", "assistant": "\n\nAssistant:"})
            keys["turn_markers"] = {"system": f"\n{mark}", **markers}
        entry = Entry({"type": "chat_template.dialogue", **named, **keys}, {}, TEMPLATE)
        return Layout("dialogues, each in one text", {"conversation": entry, "prompt": entry})
    return None


def function_calls(columns: Columns) -> Layout | None:
    """Recognize a question, JSON text of the tools, and JSON text of the calls that answer it, as in xLAM."""
    question = columns.first(("query", "prompt", "question", "instruction"))
    for name in ("answers", "answer", "calls", "tool_calls", "function_calls"):
        calls = columns.parsed(name) or [value for value in columns.values(name) if isinstance(value, list)]
        items = [item for value in calls for item in value] if all(isinstance(v, list) for v in calls) else []
        if question is None or not items or not all(isinstance(i, Mapping) and "arguments" in i for i in items):
            continue
        keys = {} if question == "prompt" else {"field_messages": question}
        entry = Entry({"type": "chat_template.prompt_completion", **keys, "field_tool_calls": name}, {}, TOOLS)
        return Layout("questions that are answered with tool calls", {"conversation": entry})
    return None


def trees(columns: Columns) -> Layout | None:
    """Recognize messages of trees, one in each row, or whole trees with nested replies, as in OpenAssistant."""
    nested = columns.is_mapping("prompt") and all("replies" in value for value in columns.values("prompt"))
    if not nested and not set(columns.names) >= TREE:
        return None
    words = "trees of messages with nested replies" if nested else "messages of trees, one in each row"
    return Layout(words, {"conversation": Entry({"type": "chat_template"}, {}, TEMPLATE)}, linearize=True)
