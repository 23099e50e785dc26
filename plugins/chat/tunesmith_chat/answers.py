"""What the child answers: texts and their regions, packed close by the child, read with suspicion by the run.

{"outlines": [[[why, weight], ...], ...], "items": [...]}, and the texts end to end. An item is [characters, unmarked,
number of its outline, end, end, ...], or [message, help, code] of a row that is refused. Chats of one shape share an
outline.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from tunesmith_chat import wire
from tunesmith_chat.spans import Found

Outline = tuple[tuple[str, float], ...]
"""Of each region of a text: why its characters are trained or not, and their loss weight."""
CODES = ("row", "template-unstable")


class Rendered(NamedTuple):
    """A text, where its regions end, their outline, and how many generation blocks have no end token (see spans.py)."""

    text: str
    ends: tuple[int, ...]
    outline: Outline
    unmarked: int


class Refusal(NamedTuple):
    """Why a row can't be used, what to do, and the error's code."""

    message: str
    help: str | None
    code: str = "row"


class Packer:
    """Gathers answers until they are sent."""

    def __init__(self) -> None:
        self.size = 0
        """Bytes of the texts."""
        self.items: list[Any] = []
        self._texts: list[bytes] = []
        self._outlines: dict[Outline, int] = {}

    def add(self, found: Found) -> None:
        """Raises UnicodeEncodeError for a text that UTF-8 has no bytes for."""
        text = found.text.encode("utf-8")
        outline = tuple([(region.reason, region.weight) for region in found.regions])
        number = self._outlines.setdefault(outline, len(self._outlines))
        self.items.append([len(found.text), found.unmarked, number, *[region.end for region in found.regions]])
        self._texts.append(text)
        self.size += len(text)

    def refuse(self, message: str, help: str | None = None, code: str = "row") -> None:
        self.items.append((message, help, code))

    def packed(self) -> tuple[str, bytes]:
        """JSON and texts."""
        return wire.packed({"outlines": list(self._outlines), "items": self.items}), b"".join(self._texts)


def read(said: Any, text: str, most: int) -> list[Rendered | Refusal]:
    """The answers in a message, of which there are at least one and at most `most`. Raises wire.Broken."""
    try:
        outlines = [tuple([(why, weight) for why, weight in outline]) for outline in said["outlines"]]
        items = said["items"]
        known = all(
            type(why) is str and type(weight) is float and 0 <= weight < math.inf
            for outline in outlines
            for why, weight in outline
        )
        if not (known and type(items) is list and 0 < len(items) <= most):
            raise wire.Broken("no answer")
        found: list[Rendered | Refusal] = []
        position = 0
        for item in items:
            if type(item[0]) is str:
                message, help, code = item
                found.append(Refusal(message, help and str(help), code if code in CODES else "row"))
                continue
            if set(map(type, item)) != {int} or min(item) < 0:
                raise wire.Broken("no answer")
            stop, outline = position + item[0], outlines[item[2]]
            if stop > len(text) or len(item) != 3 + len(outline):
                raise wire.Broken("no answer")
            found.append(Rendered(text[position:stop], tuple(item[3:]), outline, item[1]))
            position = stop
        return found
    except (TypeError, ValueError, LookupError) as error:
        raise wire.Broken("no answer") from error
