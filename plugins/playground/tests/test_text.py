"""The text of an answer: pieces of whole characters, thoughts apart from the rest, and columns."""

from __future__ import annotations

import pytest
from tunesmith_playground.columns import Column, width_of
from tunesmith_playground.decoding import INCOMPLETE, TextStream, Thinking

from tests import tiny

TEXTS = ("plain words", "naïve façade — 中文字符 🙂🙃 👩‍👩‍👧 done", "a\n\n  b\tc", "\u202egnp\x1b[31m", "")


def pieces(text: str, stop: tuple[str, ...] = ()) -> list[str]:
    stream = TextStream(tiny.tokenizer(), stop)
    return [*(stream.add(token) for token in tiny.tokenizer()(text).input_ids), stream.finish()]


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_are_whole_characters_and_together_the_text(text: str) -> None:
    assert "".join(pieces(text)) == text
    assert not any(INCOMPLETE in piece for piece in pieces(text))


def test_a_text_is_shown_while_it_grows() -> None:
    assert len([piece for piece in pieces("many plain words in a row") if piece]) > 5


def test_bytes_without_a_character_are_shown_at_last() -> None:
    tokens = tiny.tokenizer()("中").input_ids
    stream = TextStream(tiny.tokenizer())
    assert [stream.add(token) for token in tokens[:2]] == ["", ""]
    assert stream.finish().strip(INCOMPLETE) == ""
    stream = TextStream(tiny.tokenizer())
    assert INCOMPLETE in "".join(stream.add(tokens[0]) for _ in range(100))  # does not wait forever


def test_special_tokens_are_not_shown() -> None:
    assert "".join(pieces("one<|im_end|> two")) == "one two"


def test_a_stop_string_is_not_shown_in_any_part() -> None:
    for text in ("answer###", "answer###more", "an#swer##x#"):
        parts = pieces(text, ("###",))
        assert "".join(parts) == text.partition("###")[0]


def test_thoughts_are_found_in_any_pieces() -> None:
    text = "a<think>b</think>c<d"
    for size in range(1, len(text) + 1):
        thinking, parts = Thinking(), []
        for at in range(0, len(text), size):
            parts += thinking.add(text[at : at + size])
        parts += thinking.add("", last=True)
        assert "".join(part for part, thought in parts if not thought) == "ac<d"
        assert "".join(part for part, thought in parts if thought) == "<think>b</think>"
    assert Thinking(begun=True).add("b</think>c") == [("b</think>", True), ("c", False)]


def test_a_column_breaks_between_words_and_only_its_last_line_changes() -> None:
    complete: list[str]
    text, column, complete = "the quick brown fox jumps over a verylongwordwithoutspaces\n\nend", Column(10), []
    for character in text:
        column.add(character, False)
        lines = [column.line(row, False) for row in range(column.rows(False))]
        assert lines[: len(complete)] == complete
        complete = lines
    lines = [column.line(row, False).rstrip() for row in range(column.rows(True))]
    assert lines == ["the quick", "brown fox", "jumps over", "a", "verylongwo", "rdwithouts", "paces", "", "end"]


def test_a_column_counts_wide_and_combining_characters() -> None:
    column = Column(4)
    column.add("中文字e\u0301e\u0301", False)
    assert [column.line(row, False) for row in range(2)] == ["中文", "字e\u0301e\u0301"]
    assert [width_of(character) for character in "a中\u0301\u200d"] == [1, 2, 0, 0]
