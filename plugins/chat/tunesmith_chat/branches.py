"""Split the tokens of conversations with a common beginning into a prompt and its completions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tunesmith import Example, Row, Segment
from tunesmith_chat.tokens import Tokens


def branched(row: Row, fields: Sequence[str], texts: Sequence[Tokens], attributes: dict[str, Any]) -> Example:
    """Return an example of a prompt and one branch for each text.

    The prompt is the longest common beginning of all texts in which no token is trained. A branch is the rest of its
    text.

    fields: the column of each text. attributes: further attributes of the example. Raise DataError for a text without
    trained tokens.
    """
    firsts = []
    for field, text in zip(fields, texts, strict=True):
        trained = np.flatnonzero(text.weights)
        if not len(trained):
            raise row.error(field, "has no trained tokens", "check that the answer is not empty")
        firsts.append(int(trained[0]))
    fork = min(firsts)
    first = texts[0]
    for other in texts[1:]:
        different = np.flatnonzero(first.ids[:fork] != other.ids[:fork])
        fork = int(different[0]) if len(different) else fork
    prompt = Segment(first.ids[:fork], first.weights[:fork], notes=_notes(first, 0, fork))
    branches = [
        Segment(text.ids[fork:], text.weights[fork:], fork=fork, notes=_notes(text, fork, len(text.ids)))
        for text in texts
    ]
    return Example([prompt, *branches], **attributes)


def _notes(text: Tokens, begin: int, stop: int) -> list[tuple[int, str]]:
    """Return the notes of tokens begin..stop-1, with offsets from `begin`."""
    notes = []
    before = 0
    for end, reason in text.notes:
        if end > begin and before < stop:
            notes.append((min(end, stop) - begin, reason))
        before = end
    return notes
