"""The roles of messages, the names that data has for them, and the property that holds reasoning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

REASONING = "reasoning_content"
REASONING_NAMES = (REASONING, "thinking", "reasoning")
"""Names of a message's reasoning; templates read the first, some the second (as in transformers 5.23)."""
BUILT_IN = ("system", "user", "assistant", "tool")


def role_names(roles: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Name in the data -> role that the template is given; `roles` are further roles with their other names."""
    names = {alias: role for role, aliases in roles.items() for alias in aliases}
    return {role: role for role in (*BUILT_IN, *roles)} | names
