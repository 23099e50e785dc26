"""One row as the rules look at it."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tunesmith import DatasetSpec, Example, Row, Segment
from tunesmith_lint.vocabulary import Vocabulary, strings

ROLES = ("role", "from")
CONTENTS = ("content", "value")
"""What messages call who speaks and what is said, where an entry does not say it (message_property_mappings)."""


class Look:
    """A row, its example, and what the engine does with it: outcome (None, too_long, truncated, split), and `left`, the
    number of its tokens that are trained in the end."""

    def __init__(
        self, spec: DatasetSpec, words: Vocabulary, row: Row, example: Example, outcome: str | None, left: int
    ):
        self.spec, self.words, self.row, self.example = spec, words, row, example
        self.outcome, self.left = outcome, left
        self.kind = spec.row_kind
        self.completions: Sequence[Segment] = example.segments[1:]
        self.trained = [s.tokens[s.weights != 0] for s in self.completions]  # [trained tokens] of each

    @functools.cached_property
    def text(self) -> list[str]:
        """Every text in the row."""
        return list(strings(self.row))

    @functools.cached_property
    def empty(self) -> bool:
        """Whether an answer is trained that says nothing: an end token and white space alone."""
        return any(len(tokens) and self.says_nothing(tokens) for tokens in self.trained)

    def says_nothing(self, tokens: Any) -> bool:
        return all(token in self.words.ends or self.words.blank(token) for token in tokens.tolist())

    def messages(self) -> Iterator[dict[str, Any]]:
        """The messages in all columns of the row that hold some."""
        for value in self.row.values():
            if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
                yield from (one for one in value if self.named("role", ROLES) & one.keys())

    def said(self, message: dict[str, Any]) -> bool:
        """Whether a message says or does anything: it has content, or beside its role another property with a value."""
        contents, roles = self.named("content", CONTENTS), self.named("role", ROLES)
        texts = [message[name] for name in contents & message.keys()]
        if any(text.strip() if isinstance(text, str) else text for text in texts):
            return True
        return any(value not in (None, "", [], {}, False, True) for name, value in message.items()
                   if name not in contents | roles | {"name"})  # fmt: skip

    @functools.cached_property
    def mappings(self) -> dict[str, str]:
        return getattr(self.spec.options, "message_property_mappings", {})

    def named(self, name: str, usual: Sequence[str]) -> set[str]:
        return {self.mappings[name]} if name in self.mappings else set(usual)

    def opening(self) -> list[int]:
        """The first two tokens."""
        both = np.concatenate([s.tokens[:2] for s in self.example.segments[:2]])
        return [int(token) for token in both[:2]]
