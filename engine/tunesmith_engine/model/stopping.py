"""Find stop strings in the text of a completion while it grows by tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

CONTEXT = 8
"""Tokens before the new ones that are decoded with them. The bytes of an incomplete character are at most 3 tokens, and
some tokenizers decode a space only after another token."""
WINDOW = 32
"""Tokens decoded at a time, at most."""


class StopMatcher:
    """The end of a completion's text, in which stop strings are searched as tokens are added.

    A stop string may begin and end within tokens. A character whose bytes are not complete yet is not part of the text.
    """

    def __init__(self, tokenizer: Any, prompt: Sequence[int], stop: Sequence[str]):
        self.tokenizer = tokenizer
        self.stop = stop
        self.before = max(map(len, stop)) - 1
        self.text = ""
        self.tokens = list(prompt[-CONTEXT:])
        self.seen = len(self._decode())

    def _decode(self) -> str:
        text = self.tokenizer.decode(self.tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return str(text).rstrip("\N{REPLACEMENT CHARACTER}")

    def add(self, token: int) -> bool:
        """Append a token, and return True if the text now contains a stop string."""
        self.tokens.append(token)
        text = self._decode()
        self.text += text[self.seen :]
        self.seen = max(self.seen, len(text))
        if any(stop in self.text for stop in self.stop):
            return True
        self.text = self.text[len(self.text) - self.before :] if len(self.text) > self.before else self.text
        if len(self.tokens) >= WINDOW:
            self.tokens = self.tokens[-CONTEXT:]
            self.seen = len(self._decode())
        return False
