"""Find stop strings in the text of a completion while it grows by tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

CONTEXT = 8
"""Tokens that are decoded before new ones, because some tokenizers decode a space only after another token."""
WINDOW = 64
"""Tokens decoded at a time, at most. So many are needed only for a long run of bytes that are not valid UTF-8."""
INCOMPLETE = "\N{REPLACEMENT CHARACTER}"


class StopMatcher:
    """The end of a completion's text, in which stop strings are searched as tokens are added.

    A stop string may begin and end within tokens. A character whose bytes are not complete yet is not part of the text.
    """

    def __init__(self, tokenizer: Any, prompt: Sequence[int], stop: Sequence[str]):
        self.tokenizer = tokenizer
        self.stop = stop
        self.text = ""
        self.longest = max(map(len, stop))
        # The window begins with a complete character: some tokenizers decode nothing of a run of bytes if one of them
        # is not valid. `complete` is a later place where a character begins.
        self.tokens = list(prompt[-WINDOW:])
        start = max(0, len(self.tokens) - CONTEXT)
        while start and self._decode(self.tokens[start:]).startswith(INCOMPLETE):
            start -= 1
        self._cut(start)

    def _decode(self, tokens: list[int]) -> str:
        return str(self.tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def _cut(self, start: int) -> None:
        """Drop the tokens before `start`. All text of the others has been searched."""
        self.tokens = self.tokens[start:]
        self.searched = len(self._decode(self.tokens).rstrip(INCOMPLETE))
        self.complete = len(self.tokens)

    def add(self, token: int) -> bool:
        """Append a token, and return True if the text now contains a stop string."""
        self.tokens.append(token)
        decoded = self._decode(self.tokens)
        text = decoded.rstrip(INCOMPLETE)
        self.text = self.text[-self.longest :] + text[self.searched :]
        self.searched = max(self.searched, len(text))
        if any(stop in self.text for stop in self.stop):
            return True
        if text == decoded and len(self.tokens) - self.complete >= CONTEXT:
            self._cut(self.complete)
        elif len(self.tokens) == WINDOW:
            self._cut(WINDOW - CONTEXT)
        return False
