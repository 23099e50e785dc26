"""Encode and validate the answers of the rendering process: texts and their regions.

An answer is {"outlines": [[[reason, weight], ...], ...], "items": [...]}, followed by the texts end to end. An item is
[characters, unmarked, lost, index of its outline, end, end, ...], or [message, help, code] for a row that is refused.
Conversations of the same shape share an outline. The run does not trust the process, so it checks every value.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from tunesmith_chat import wire
from tunesmith_chat.spans import MarkedText

Outline = tuple[tuple[str, float], ...]
"""For each region of a text: why its characters are trained or not, and their loss weight."""
CODES = ("row", "template-unstable")


class Rendered(NamedTuple):
    """A text, the ends of its regions, their outline, and what spans.MarkedText describes."""

    text: str
    ends: tuple[int, ...]
    outline: Outline
    unmarked: int
    lost: int = 0


class Refusal(NamedTuple):
    """Why a row can't be used, what to do about it, and the error code."""

    message: str
    help: str | None
    code: str = "row"


class Packer:
    """Collects answers until they are sent."""

    def __init__(self) -> None:
        self.size = 0
        """Number of bytes of the texts."""
        self.items: list[Any] = []
        self._texts: list[bytes] = []
        self._outlines: dict[Outline, int] = {}

    def add(self, marked: MarkedText) -> None:
        """Add an answer. Raise UnicodeEncodeError for a text with a lone surrogate, which UTF-8 can't encode."""
        text = marked.text.encode("utf-8")
        outline = tuple([(region.reason, region.weight) for region in marked.regions])
        number = self._outlines.setdefault(outline, len(self._outlines))
        ends = [region.end for region in marked.regions]
        self.items.append([len(marked.text), marked.unmarked, marked.lost, number, *ends])
        self._texts.append(text)
        self.size += len(text)

    def refuse(self, message: str, help: str | None = None, code: str = "row") -> None:
        self.items.append((message, help, code))

    def packed(self) -> tuple[str, bytes]:
        """Return the answers as JSON, and the bytes of their texts."""
        return wire.packed({"outlines": list(self._outlines), "items": self.items}), b"".join(self._texts)


def read(message: Any, text: str, limit: int) -> list[Rendered | Refusal]:
    """Return the answers in a message: at least one and at most `limit`. Raise wire.ProtocolError if it is malformed.

    message: its JSON value. text: the texts of its answers, end to end.
    """
    try:
        outlines = [tuple([(reason, weight) for reason, weight in outline]) for outline in message["outlines"]]
        items = message["items"]
        valid = all(
            type(reason) is str and type(weight) is float and 0 <= weight < math.inf
            for outline in outlines
            for reason, weight in outline
        )
        if not (valid and type(items) is list and 0 < len(items) <= limit):
            raise wire.ProtocolError("malformed answer")
        answers: list[Rendered | Refusal] = []
        position = 0
        for item in items:
            if type(item[0]) is str:
                problem, help, code = item
                answers.append(Refusal(problem, help and str(help), code if code in CODES else "row"))
                continue
            if set(map(type, item)) != {int} or min(item) < 0:
                raise wire.ProtocolError("malformed answer")
            stop, outline = position + item[0], outlines[item[3]]
            if stop > len(text) or len(item) != 4 + len(outline):
                raise wire.ProtocolError("malformed answer")
            answers.append(Rendered(text[position:stop], tuple(item[4:]), outline, item[1], item[2]))
            position = stop
        return answers
    except (TypeError, ValueError, LookupError) as error:
        raise wire.ProtocolError("malformed answer") from error
