"""Define what `preprocess --debug` and `--html` show of an example: its tokens, each with a reason, and its outcome."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tunesmith.run import DatasetSpec

CUT = "cut: beyond sequence_len"
NUMBER = re.compile(r" \d+(?![\d.])")
"""The number of a turn or a step in a reason, such as "assistant turn 2"."""


@dataclass(frozen=True)
class Token:
    """A token of an example.

    Args:
        id: its id in the vocabulary.
        text: what it adds to the text. Of several tokens that make one character, all but the last have "".
        weight: its loss weight; 0 is masked.
        differs: True if it is not in the other answer of a pair.
        columns: its numbers that a loss reads, such as the label of a step.
    """

    id: int
    text: str
    weight: float
    differs: bool = False
    columns: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Stretch:
    """Consecutive tokens that are trained or masked for the same reason.

    Args:
        why: the reason, from the strategy.
        tokens: the tokens.
        cut: True if they are beyond sequence_len, so that the model does not see them.
        piece: the number of the example that begins here, if the row is split into several; otherwise 0.
    """

    why: str
    tokens: list[Token]
    cut: bool = False
    piece: int = 0

    @property
    def trained(self) -> int:
        """The number of trained tokens."""
        return 0 if self.cut else sum(token.weight != 0 for token in self.tokens)

    @property
    def label(self) -> str:
        """The reason, with a note on cut tokens and on weights other than 0 and 1."""
        weights = sorted({token.weight for token in self.tokens} - {0.0})
        text = f"{CUT} ({self.why})" if self.cut else self.why
        if weights in ([], [1.0]) or "weight" in text:
            return text
        return f"{text}, weight {' to '.join(f'{w:g}' for w in dict.fromkeys((weights[0], weights[-1])))}"


@dataclass(frozen=True)
class Part:
    """A segment of an example's tree.

    Args:
        name: prompt, chosen, completion 2, ...
        position: the position of its first token.
        depth: the number of segments above it.
        after: the name of the segment that it continues, or "".
        stretches: its tokens by reason.
        columns: its own numbers, such as an advantage.
    """

    name: str
    position: int
    depth: int
    after: str
    stretches: list[Stretch]
    columns: dict[str, float]

    @property
    def tokens(self) -> int:
        """The number of tokens."""
        return sum(len(stretch.tokens) for stretch in self.stretches)


@dataclass(frozen=True)
class ShownExample:
    """An example with everything that is shown of it.

    Args:
        spec: its dataset entry.
        where: the place of its row.
        parts: the segments of its tree.
        outcome: what the engine changes ("cut to sequence_len 3", "dropped: ..."), or "" if it keeps the example as is.
        dropped: True if the engine does not train on it.
        facts: columns and fields of the example.
        pair: True if the last two parts are a chosen and a rejected answer.
    """

    spec: DatasetSpec
    where: str
    parts: list[Part]
    outcome: str
    dropped: bool
    facts: dict[str, Any]
    pair: bool = False

    @property
    def stretches(self) -> list[Stretch]:
        """The stretches of all parts."""
        return [stretch for part in self.parts for stretch in part.stretches]

    @property
    def tokens(self) -> int:
        """The number of tokens."""
        return sum(part.tokens for part in self.parts)

    @property
    def trained(self) -> int:
        """The number of tokens that the engine trains on."""
        return 0 if self.dropped else sum(stretch.trained for stretch in self.stretches)

    @property
    def title(self) -> str:
        """The place, the size and the outcome in one line."""
        line = f"{self.where}: {self.tokens:,} tokens, {self.trained:,} trained"
        return f"{line}; {self.outcome}" if self.outcome else line


def printable(text: str) -> str:
    """Return the text with line ends, control characters and direction marks escaped, so that it can't steer output."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def by_reason(stretches: Iterable[Stretch]) -> dict[str, tuple[int, int]]:
    """Return reason -> (tokens, trained tokens), with the numbers of turns and steps removed from reasons."""
    tokens: Counter[str] = Counter()
    trained: Counter[str] = Counter()
    for stretch in stretches:
        why = CUT if stretch.cut else NUMBER.sub("", stretch.why)
        tokens[why] += len(stretch.tokens)
        trained[why] += stretch.trained
    return {why: (number, trained[why]) for why, number in tokens.items()}
