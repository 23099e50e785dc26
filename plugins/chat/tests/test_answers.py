"""Answers come through as they were found; what is none is noticed, whoever wrote it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tunesmith_chat.answers import Packer, Refusal, Rendered, read
from tunesmith_chat.spans import Found, Region
from tunesmith_chat.wire import Broken

REGIONS = [Region(2, "role user", 0.0), Region(3, "assistant turn 1", 1.0)]
OUTLINE = (("role user", 0.0), ("assistant turn 1", 1.0))
NO_ANSWERS: list[Any] = [
    None,
    [],
    {"outlines": [], "items": []},
    {"outlines": [[["why", 1]]], "items": [[0, 0, 0, 0]]},
    {"outlines": [[[1, 1.0]]], "items": [[0, 0, 0, 0]]},
    {"outlines": [[["why", 1.0]]], "items": [[0, 0, 0, 0]] * 2},
]
NO_ITEMS: list[Any] = [None, "four", [], [1], [0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, "0"], [0, 0, 0, True],
                       [4, 0, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [0, 0, -1, 0]]  # fmt: skip


def test_answers_come_through_as_they_were_found() -> None:
    packer = Packer()
    packer.add(Found("aä🦆", REGIONS, 1))
    packer.refuse("no", "try", "template-unstable")
    packer.add(Found("abc", REGIONS))
    packer.add(Found("", []))
    said, texts = packer.packed()
    assert packer.size == len(texts) == 10
    assert read(json.loads(said), texts.decode(), 4) == [
        Rendered("aä🦆", (2, 3), OUTLINE, 1),
        Refusal("no", "try", "template-unstable"),
        Rendered("abc", (2, 3), OUTLINE, 0),
        Rendered("", (), (), 0),
    ]


def test_a_text_with_half_a_character_is_not_packed() -> None:
    packer = Packer()
    with pytest.raises(UnicodeEncodeError):
        packer.add(Found("a\ud800", REGIONS))
    assert not packer.items


@pytest.mark.parametrize("said", NO_ANSWERS + [{"outlines": [[["why", 1.0]]], "items": [item]} for item in NO_ITEMS])
def test_what_is_no_answer_is_noticed(said: Any) -> None:
    with pytest.raises(Broken):
        read(said, "abc", 1)
