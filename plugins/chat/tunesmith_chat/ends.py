"""End tokens: which tokens end a turn, where they stand in a text, and which of them are trained.

There is the tokenizer's end token (train_on_eos), and there may be tokens of the template's own (train_on_eot).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

WhichEnds = Literal["all", "turn", "last", "none"]
"""Of all turns, of trained turns, of the last trained turn, or of none."""


class End(NamedTuple):
    """An end token in a text: [at, stop) in characters, the token, and why it is trained or not."""

    at: int
    stop: int
    token: str
    reason: str


class Ends:
    """The end tokens of one template and one set of options: (token, option, its value) of each.

    A token "" is one that the tokenizer lacks: it stands nowhere, and may be wanted all the same.
    """

    def __init__(self, ends: Sequence[tuple[str, str, WhichEnds]]):
        self.modes = {token: mode for token, _, mode in ends if token}
        self._all_modes = [mode for _, _, mode in ends]
        self._reasons = {token: f"end token ({option}: {mode})" for token, option, mode in ends if token}
        # Of two that end alike, the longer is meant
        self.tokens = sorted(self.modes, key=len, reverse=True)
        self.of_all_turns = "all" in self.modes.values()

    def kept(self, token: str, last: bool) -> bool:
        """Whether the end token of a trained turn is trained; `last`: of the last one."""
        return _kept(self.modes[token], last)

    def wanted(self, last: bool) -> bool:
        """Whether any end token of a trained turn is to be trained."""
        return any(_kept(mode, last) for mode in self._all_modes)

    def within(self, text: str) -> bool:
        """Whether a text has an end token in it."""
        return any(token in text for token in self.tokens)

    def number(self, text: str, start: int, end: int) -> int:
        """How many end tokens stand in [start, end)."""
        return sum(text.count(token, start, end) for token in self.tokens)

    def last(self, text: str, start: int, end: int) -> list[End]:
        """The last end token in [start, end), after those of other kinds that stand right before it."""
        if len(self.tokens) == 1:  # as nearly always, and asked for each turn
            token = self.tokens[0]
            at = text.rfind(token, start, end)
            return [] if at < 0 else [End(at, at + len(token), token, self._reasons[token])]
        found: list[End] = []
        left = list(self.tokens)
        while left:
            # Of those that end last, the longest: tokens are in order of length
            ends = {token: text.rfind(token, start, end) + len(token) for token in left}
            token = max(left, key=lambda token: ends[token] if ends[token] >= start + len(token) else -1)
            at = ends[token] - len(token)
            if at < start or (found and text[ends[token] : end].strip()):
                break
            found.insert(0, End(at, ends[token], token, self._reasons[token]))
            left.remove(token)
            end = at
        return found


def _kept(mode: WhichEnds, last: bool) -> bool:
    return mode in ("all", "turn") or (mode == "last" and last)
