"""Find the end tokens of a text and decide which of them are trained.

train_on_eos applies to the tokenizer's end token, train_on_eot to further end tokens of the template.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

WhichEnds = Literal["all", "turn", "last", "none"]
"""The end tokens to train: of all turns, of each trained turn, of the last trained turn, or none."""


class End(NamedTuple):
    """An end token in a text: its characters [at, stop), its text, and why it is trained or not."""

    at: int
    stop: int
    token: str
    reason: str


class Ends:
    """The end tokens of one template under one set of options.

    ends: for each end token its text, the option that applies to it, and the value of that option. The text is "" if
    the tokenizer has no end token. It then matches nothing, but its option still counts in `wanted`.
    """

    def __init__(self, ends: Sequence[tuple[str, str, WhichEnds]]):
        self.modes = {token: mode for token, _, mode in ends if token}
        self._all_modes = [mode for _, _, mode in ends]
        self._reasons = {token: f"end token ({option}: {mode})" for token, option, mode in ends if token}
        # Longest first: if one token is the end of another, the longer one is meant
        self.tokens = sorted(self.modes, key=len, reverse=True)
        self.of_all_turns = "all" in self.modes.values()

    def kept(self, token: str, last: bool) -> bool:
        """Return True if the end token of a trained turn is trained. last: it is the last trained turn."""
        return _kept(self.modes[token], last)

    def wanted(self, last: bool) -> bool:
        """Return True if any end token of a trained turn is to be trained. last: it is the last trained turn."""
        return any(_kept(mode, last) for mode in self._all_modes)

    def within(self, text: str) -> bool:
        """Return True if a text contains an end token."""
        return any(token in text for token in self.tokens)

    def count(self, text: str, start: int, end: int) -> int:
        """Return the number of end tokens in [start, end)."""
        return sum(text.count(token, start, end) for token in self.tokens)

    def last(self, text: str, start: int, end: int) -> list[End]:
        """Return the last end token in [start, end), after those of other kinds that come right before it."""
        if len(self.tokens) == 1:  # the usual case, and called for each turn
            token = self.tokens[0]
            at = text.rfind(token, start, end)
            return [] if at < 0 else [End(at, at + len(token), token, self._reasons[token])]
        matches: list[End] = []
        remaining = list(self.tokens)
        while remaining:
            # Tokens are sorted by length, so of those that end at the same place, max takes the longest
            ends = {token: text.rfind(token, start, end) + len(token) for token in remaining}
            token = max(remaining, key=lambda token: ends[token] if ends[token] >= start + len(token) else -1)
            at = ends[token] - len(token)
            if at < start or (matches and text[ends[token] : end].strip()):
                break
            matches.insert(0, End(at, ends[token], token, self._reasons[token]))
            remaining.remove(token)
            end = at
        return matches


def _kept(mode: WhichEnds, last: bool) -> bool:
    return mode in ("all", "turn") or (mode == "last" and last)
