"""Show a prompt without the markers of its template."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

ROLES = {"system", "developer", "user", "human", "assistant", "model", "gpt", "bot", "tool", "observation", "ipython"}
"""The names of speakers that templates write between markers, or on the line after one."""


def markers_of(tokenizer: Any) -> set[str]:
    """Return the texts of a tokenizer's special tokens."""
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    return {*getattr(tokenizer, "all_special_tokens", ()), *(str(t) for t in added if getattr(t, "special", False))}


def readable(prompt: str, markers: Iterable[str]) -> str:
    """Return the turns of a rendered prompt, with their roles if there are several; without markers, the prompt."""
    longest_first = sorted(filter(None, markers), key=len, reverse=True)
    parts = re.split("|".join(map(re.escape, longest_first)), prompt) if longest_first else [prompt]
    if len(parts) == 1:
        return prompt
    turns: list[tuple[str, str]] = []
    role = ""
    for part in parts:
        first, _, rest = part.lstrip().partition("\n")
        if first.strip() in ROLES:
            role, part = first.strip(), rest
        if part.strip():
            turns.append((role, part.strip()))
    if len(turns) == 1:
        return turns[0][1]
    return "\n".join(f"{role}: {text}" if role else text for role, text in turns)
