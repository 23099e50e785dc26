"""Define the roles of messages, their other names in data, and the properties that contain reasoning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

REASONING = "reasoning_content"
REASONING_NAMES = (REASONING, "thinking", "reasoning")
"""Properties with the reasoning of a message. Templates read the first, some the second (as in transformers 5.23)."""
BUILT_IN = ("system", "user", "assistant", "tool")


def role_names(roles: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Return a mapping from names in the data to roles. roles: role -> its other names, in addition to BUILT_IN."""
    names = {alias: role for role, aliases in roles.items() for alias in aliases}
    return {role: role for role in (*BUILT_IN, *roles)} | names
