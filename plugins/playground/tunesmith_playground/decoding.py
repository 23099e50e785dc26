"""Turn tokens into text while they are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

INCOMPLETE = "\N{REPLACEMENT CHARACTER}"
LONGEST = 32
"""Tokens that wait for the rest of a character, at most. A character has at most four bytes, so a longer run of tokens
without a complete one is not text."""


class TextStream:
    """The text of an answer, in pieces that grow by tokens.

    A piece ends with a complete character, and never contains the first part of a stop string. Special tokens are left
    out. The pieces together are the text of all tokens, up to the stop string that ended the answer.

    Args:
        tokenizer: the tokenizer of the model.
        stop: strings that end the answer.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str] = ()):
        self.tokenizer = tokenizer
        self.stop = [text for text in stop if text]
        self.tokens: list[int] = []
        self.shown = 0  # so many of `tokens` have been decoded completely
        self.waiting = ""
        self.stopped = False

    def add(self, token: int) -> str:
        """Append a token, and return the text that is complete now."""
        self.tokens.append(token)
        return self._release(self._new(complete=False), last=False)

    def finish(self) -> str:
        """Return the rest of the text."""
        return self._release(self._new(complete=True), last=True)

    def _decode(self, tokens: list[int]) -> str:
        options = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
        return str(self.tokenizer.decode(tokens, **options))

    def _new(self, complete: bool) -> str:
        """Return the text after the tokens that have been shown, unless it ends within a character."""
        # Earlier tokens are decoded with the new ones: some tokenizers write a space only between two of them.
        before, text = self._decode(self.tokens[: self.shown]), self._decode(self.tokens)
        waits = len(self.tokens) - self.shown
        if text.endswith(INCOMPLETE) and not complete and waits < LONGEST:
            return ""
        new = text[len(before) :]
        # Only the last piece is needed as the context of the next one, unless it has no text.
        self.tokens = self.tokens[self.shown :] if new else self.tokens
        self.shown = len(self.tokens)
        return new

    def _release(self, new: str, last: bool) -> str:
        """Return what can't be a part of a stop string any more."""
        if self.stopped:
            return ""
        text = self.waiting + new
        places = [place for stop in self.stop if (place := text.find(stop)) >= 0]
        if places:
            self.stopped, self.waiting = True, ""
            return text[: min(places)]
        kept = 0 if last else max((_overlap(text, stop) for stop in self.stop), default=0)
        self.waiting = text[len(text) - kept :]
        return text[: len(text) - kept]


def _overlap(text: str, mark: str) -> int:
    """Return the length of the longest end of a text with which a mark may begin."""
    return next((n for n in range(min(len(text), len(mark) - 1), 0, -1) if text.endswith(mark[:n])), 0)


class Thinking:
    """Divide a text that comes in pieces into what a model thinks, between two marks, and what it answers.

    Args:
        begun: the text begins within such a part, because the prompt ends with its mark.
    """

    OPEN, CLOSE = "<think>", "</think>"

    def __init__(self, begun: bool = False):
        self.inside = begun
        self.waiting = ""

    def add(self, text: str, last: bool = False) -> list[tuple[str, bool]]:
        """Return (text, thought) of each part. Marks belong to what they enclose."""
        text, parts = self.waiting + text, []
        while True:
            mark = self.CLOSE if self.inside else self.OPEN
            before, met, after = text.partition(mark)
            if not met:
                break
            parts += [(before + mark, True)] if self.inside else [(before, False), (mark, True)]
            self.inside, text = not self.inside, after
        kept = 0 if last else _overlap(text, mark)
        self.waiting = text[len(text) - kept :]
        parts.append((text[: len(text) - kept], self.inside))
        return [(part, thought) for part, thought in parts if part]
