"""Split pairs without a prompt column: the common beginning of both answers is the prompt."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from tunesmith import Row

TURN = re.compile(r"(?:\A|\n)\s*([A-Z]\w{1,20}):")
"""The start of a turn in the text of a dialogue, such as "\\n\\nAssistant:"."""


def split_common(row: Row, columns: Sequence[str], texts: Sequence[str]) -> tuple[str, list[str]]:
    """Return the prompt and the rest of both texts.

    In a dialogue, the prompt ends with the marker of the answering speaker; in other texts, before a word, so that no
    token spans both. Raise DataError if the texts have no such beginning in common.
    """
    first, second = texts
    equal = (a == b for a, b in zip(first, second, strict=False))
    common = first[: sum(itertools.takewhile(bool, equal))]
    speakers = [[match[1] for match in TURN.finditer(text)] for text in texts]
    end = 0
    if all(len(set(names)) > 1 for names in speakers) and speakers[0][-1] == speakers[1][-1]:
        ends = [match.end() for match in TURN.finditer(common) if match[1] == speakers[0][-1]]
        end = ends[-1] if ends else 0
    end = end or max((match.start() for match in re.finditer(r"\s+", common)), default=0)
    if not common[:end].strip():
        first, second = columns
        message = f"begins differently from {first}, and there is no column with the prompt"
        raise row.error(second, message, "name the column with the prompt: field_prompt: ...")
    return common[:end], [text[end:] for text in texts]
