"""Find conversations whose turns are unusual: they can be trained, but rarely train what was meant."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

from tunesmith.files.row import Row

UNUSUAL = {
    "answers-in-a-row": "two turns of the assistant in a row",
    "begins-with-answer": "begins with the assistant",
    "ends-unanswered": "ends with the user, whose last turn has no answer",
    "tool-without-call": "a result of a tool without a call",
}
"""Name -> what is unusual."""
TOOL, CALL = {"tool", "observation", "ipython", "function"}, {"function_call", "tool_call"}
CALLS = ("tool_calls", "function_call")


class Turns:
    """The names with which the messages of an entry mark their role, from the options of its strategy."""

    def __init__(self, options: Any):
        mappings: dict[str, str] = getattr(options, "message_property_mappings", {})
        self.role_keys = (mappings["role"],) if "role" in mappings else ("role", "from")
        aliases: dict[str, list[str]] = {"assistant": ["gpt", "model", "bot"], "user": ["human"]}
        aliases |= getattr(options, "roles", {})
        self.roles = {name: role for role, names in aliases.items() for name in names}
        self.call_keys = (*CALLS, mappings.get("tool_calls", CALLS[0]))
        self.trains_users = "user" in getattr(options, "roles_to_train", ())
        self._by_roles: dict[tuple[str, ...], set[str]] = {}

    def conversations(self, row: Row) -> Iterator[list[Mapping[str, Any]]]:
        """Yield the columns of a row that are lists of messages."""
        for value in row.values():
            messages = isinstance(value, list) and value and all(isinstance(message, Mapping) for message in value)
            if messages and any(key in value[0] for key in self.role_keys):
                yield value

    def unusual(self, row: Row) -> set[str]:
        """Return what is unusual in the conversations of a row, as names of UNUSUAL."""
        names: set[str] = set()
        for messages in self.conversations(row):
            roles = tuple([self._role(message) for message in messages])
            if roles not in self._by_roles:  # most conversations have one of a few shapes
                self._by_roles[roles] = self._unusual_roles(roles)
            names |= self._by_roles[roles]
            if "tool" in roles and self._has_result_without_call(roles, messages):
                names.add("tool-without-call")
        return names

    def _unusual_roles(self, roles: tuple[str, ...]) -> set[str]:
        turns = [role for role in roles if role not in ("system", "developer")]
        names = {"answers-in-a-row"} if ("assistant", "assistant") in pairwise(turns) else set()
        names |= {"begins-with-answer"} if turns[:1] == ["assistant"] else set()
        return names | ({"ends-unanswered"} if turns[-1:] == ["user"] and not self.trains_users else set())

    def _has_result_without_call(self, roles: tuple[str, ...], messages: list[Mapping[str, Any]]) -> bool:
        called = False
        for role, message in zip(roles, messages, strict=True):
            if role == "tool" and not called:
                return True
            if role != "tool":
                called = role == "call" or any(message.get(key) for key in self.call_keys) or _writes_call(message)
        return False

    def _role(self, message: Mapping[str, Any]) -> str:
        role = next((message[key] for key in self.role_keys if key in message), None)
        if not isinstance(role, str):
            return ""
        role = self.roles.get(role, role)
        return "tool" if role in TOOL else "call" if role in CALL else role


def _writes_call(message: Mapping[str, Any]) -> bool:
    """Return True if the text of a message looks like a call that is written out, as some datasets have it."""
    return any(isinstance(text, str) and ("tool_call" in text or "functioncall" in text) for text in message.values())
