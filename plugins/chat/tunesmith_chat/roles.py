"""Define the roles of messages, their other names in data, and the properties that contain reasoning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

REASONING = "reasoning_content"
REASONING_NAMES = (REASONING, "thinking", "reasoning")
"""Properties with the reasoning of a message. Templates read the first, some the second (as in transformers 5.23)."""
BUILT_IN = ("system", "user", "assistant", "tool")
OTHER_NAMES = {"assistant": ["gpt", "model"], "user": ["human"], "tool": ["observation", "function"]}
"""Role -> other names for it in the data, which `roles:` of an entry adds to."""
_LIKELY = {
    "assistant": ("ai", "assistant", "bot", "chatbot", "chatgpt", "claude", "gpt", "model", "response"),
    "user": ("customer", "human", "instruction", "prompter", "question", "user"),
    "tool": ("environment", "function", "ipython", "observation", "tool", "tool_response"),
    "system": ("context", "developer", "persona", "system"),
}
"""Role -> names that data often have for it, for help. Names are compared in lower case."""


def role_names(roles: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Return a mapping from names in the data to roles.

    roles: role -> its other names, in addition to BUILT_IN and OTHER_NAMES.
    """
    names = {alias: role for every in (OTHER_NAMES, roles) for role, aliases in every.items() for alias in aliases}
    return {role: role for role in (*BUILT_IN, *roles)} | names


def likely_role(name: str) -> str:
    """Return the role that a name in the data probably stands for, or ROLE if that is unknown."""
    return next((role for role, names in _LIKELY.items() if name.lower().rstrip("s") in names), "ROLE")
