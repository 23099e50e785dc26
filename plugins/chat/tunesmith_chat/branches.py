"""From the tokens of whole conversations that begin alike to a prompt and completions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tunesmith import Example, Row, Segment
from tunesmith_chat.tokens import Tokens


def branched(row: Row, fields: Sequence[str], texts: Sequence[Tokens], named: dict[str, Any]) -> Example:
    """A prompt, which is what all texts begin with as long as none of it is trained, and the rest of each as a branch.

    fields: the column of each text. Raises DataError for a text of which nothing is trained.
    """
    firsts = []
    for field, text in zip(fields, texts, strict=True):
        trained = np.flatnonzero(text.weights)
        if not len(trained):
            raise row.error(field, "has no token that is trained", "is the answer empty?")
        firsts.append(int(trained[0]))
    fork = min(firsts)
    first = texts[0]
    for other in texts[1:]:
        different = np.flatnonzero(first.ids[:fork] != other.ids[:fork])
        fork = int(different[0]) if len(different) else fork
    prompt = Segment(first.ids[:fork], first.weights[:fork], notes=_notes(first, 0, fork))
    rest = [
        Segment(text.ids[fork:], text.weights[fork:], fork=fork, notes=_notes(text, fork, len(text.ids)))
        for text in texts
    ]
    return Example([prompt, *rest], **named)


def _notes(text: Tokens, begin: int, stop: int) -> list[tuple[int, str]]:
    """The notes of the tokens begin..stop-1."""
    found = []
    before = 0
    for end, reason in text.notes:
        if end > begin and before < stop:
            found.append((min(end, stop) - begin, reason))
        before = end
    return found
