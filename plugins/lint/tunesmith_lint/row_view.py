"""Present one row, its example and the engine's decision about it to the rules."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tunesmith import DatasetSpec, Example, Row, Segment
from tunesmith.files.turns import Turns
from tunesmith_lint.vocabulary import Vocabulary, strings

ROLES = ("role", "from")
CONTENTS = ("content", "value")
"""Default names for the speaker and the text of a message. message_property_mappings of an entry overrides them."""


class RowView:
    """A row, its example, and what the engine does with the example.

    outcome: None, too_long, truncated or split. pieces: what is left of the example after the engine has dropped,
    truncated or split it.
    """

    def __init__(
        self, spec: DatasetSpec, vocabulary: Vocabulary, row: Row, example: Example, outcome: str | None,
        pieces: Sequence[Example],
    ):  # fmt: skip
        self.spec, self.vocabulary, self.row, self.example = spec, vocabulary, row, example
        self.outcome, self.pieces = outcome, pieces
        self.remaining = sum(piece.trained_tokens for piece in pieces)
        self.kind = spec.row_kind
        self.completions: Sequence[Segment] = example.segments[1:]
        self.trained = [s.tokens[s.weights != 0] for s in self.completions]  # [trained tokens] of each completion

    @functools.cached_property
    def texts(self) -> list[str]:
        """All strings in the row, at any depth."""
        return list(strings(self.row))

    @functools.cached_property
    def has_empty_answer(self) -> bool:
        """True if a trained answer consists only of end tokens and white space."""
        return any(len(tokens) and self._is_empty(tokens) for tokens in self.trained)

    def _is_empty(self, tokens: Any) -> bool:
        return all(token in self.vocabulary.ends or self.vocabulary.is_blank(token) for token in tokens.tolist())

    @functools.cached_property
    def unusual(self) -> set[str]:
        """The unusual turns of a conversation, as names of turns.UNUSUAL."""
        return Turns(self.spec.options).unusual(self.row) if self.kind == "conversation" else set()

    def messages(self) -> Iterator[dict[str, Any]]:
        """Yield the messages in all columns of the row that contain a list of messages."""
        for value in self.row.values():
            if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
                yield from (item for item in value if self._names_of("role", ROLES) & item.keys())

    def has_content(self, message: dict[str, Any]) -> bool:
        """Return True if a message has text, or a property other than its role and name that has a value."""
        contents, roles = self._names_of("content", CONTENTS), self._names_of("role", ROLES)
        texts = [message[name] for name in contents & message.keys()]
        if any(text.strip() if isinstance(text, str) else text for text in texts):
            return True
        return any(value not in (None, "", [], {}, False, True) for name, value in message.items()
                   if name not in contents | roles | {"name"})  # fmt: skip

    def _names_of(self, property: str, defaults: Sequence[str]) -> set[str]:
        """Return the keys under which messages store a property."""
        mappings: dict[str, str] = getattr(self.spec.options, "message_property_mappings", {})
        return {mappings[property]} if property in mappings else set(defaults)

    def first_two_tokens(self) -> list[int]:
        """Return the first two token ids of the example, or fewer if it is shorter."""
        tokens = np.concatenate([s.tokens[:2] for s in self.example.segments[:2]])
        return [int(token) for token in tokens[:2]]
