"""Define what a layout of rows is in a config: the keys of its dataset entry for each kind of rows that it gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

TEMPLATE, TOOLS = "template", "tools"
"""What an entry needs of the chat template: that there is one, or that it writes tools too."""


@dataclass(frozen=True)
class Entry:
    """How rows are read as rows of one kind.

    Args:
        keys: the keys of the dataset entry beside its path, in order.
        comments: key -> what it means, for the file.
        needs: what it needs of the chat template, or "".
        rewards: the item of `rewards:` that scores answers, for prompts with a reference answer.
    """

    keys: Mapping[str, Any]
    comments: Mapping[str, str] = field(default_factory=dict)
    needs: str = ""
    rewards: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Layout:
    """A layout of rows.

    Args:
        words: what the rows are, in words.
        entries: kind of rows -> how they are read, the preferred kind first.
        linearize: True for messages that are rows of their own, which have to be joined before they can be trained.
    """

    words: str
    entries: Mapping[str, Entry]
    linearize: bool = False

    @property
    def kind(self) -> str:
        """The preferred kind of rows."""
        return next(iter(self.entries))

    @property
    def trainable(self) -> set[str]:
        """The kinds of rows that a method can be proposed for: prompts only with an answer that a reward compares."""
        return {kind for kind, entry in self.entries.items() if kind != "prompt" or entry.rewards is not None}
