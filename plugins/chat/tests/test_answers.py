"""Answers of the child process survive encoding, and malformed answers are refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tunesmith_chat.answers import Packer, Refusal, Rendered, read
from tunesmith_chat.spans import MarkedText, Region
from tunesmith_chat.wire import ProtocolError

REGIONS = [Region(2, "role user", 0.0), Region(3, "assistant turn 1", 1.0)]
OUTLINE = (("role user", 0.0), ("assistant turn 1", 1.0))
MALFORMED: list[Any] = [
    None,
    [],
    {"outlines": [], "items": []},
    {"outlines": [[["why", 1]]], "items": [[0, 0, 0, 0, 0]]},
    {"outlines": [[[1, 1.0]]], "items": [[0, 0, 0, 0, 0]]},
    {"outlines": [[["why", 1.0]]], "items": [[0, 0, 0, 0, 0]] * 2},
]
MALFORMED_ITEMS: list[Any] = [None, "five", [], [1], [0, 0, 0, 0], [0, 0, 0, 0, 0, 0], [0, 0, 0, 0, "0"],
                       [0, 0, 0, 0, True], [4, 0, 0, 0, 0], [-1, 0, 0, 0, 0], [0, 0, 0, 1, 0],
                       [0, 0, -1, 0, 0], [0, 0, 0, -1, 0]]  # fmt: skip


def test_answers_survive_encoding() -> None:
    packer = Packer()
    packer.add(MarkedText("aä🦆", REGIONS, 1))
    packer.refuse("no", "try", "template-unstable")
    packer.add(MarkedText("abc", REGIONS, lost=5))
    packer.add(MarkedText("", []))
    message, texts = packer.packed()
    assert packer.size == len(texts) == 10
    assert read(json.loads(message), texts.decode(), 4) == [
        Rendered("aä🦆", (2, 3), OUTLINE, 1),
        Refusal("no", "try", "template-unstable"),
        Rendered("abc", (2, 3), OUTLINE, 0, 5),
        Rendered("", (), (), 0),
    ]


def test_a_text_with_a_lone_surrogate_is_not_packed() -> None:
    packer = Packer()
    with pytest.raises(UnicodeEncodeError):
        packer.add(MarkedText("a\ud800", REGIONS))
    assert not packer.items


@pytest.mark.parametrize(
    "message", MALFORMED + [{"outlines": [[["why", 1.0]]], "items": [item]} for item in MALFORMED_ITEMS]
)
def test_a_malformed_answer_is_refused(message: Any) -> None:
    with pytest.raises(ProtocolError):
        read(message, "abc", 1)
