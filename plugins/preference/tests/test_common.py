"""Pairs without a prompt column: the common beginning of both answers is the prompt."""

from __future__ import annotations

import pytest
from tunesmith_preference import PreferenceDataset
from tunesmith_preference.rows import Reader, Texts

from tunesmith import DataError, Row

TALK = "\n\nHuman: Is it\ngood?\n\nAssistant: Yes.\n\nHuman: Why?\n\nAssistant:"


def read(type: str = "passthrough", options: PreferenceDataset | None = None, **row: object) -> Texts:
    return Reader("pair", type, options or PreferenceDataset()).read(Row(row, "rows.jsonl:1"))


def test_the_prompt_of_a_dialogue_ends_with_the_marker_of_the_answer() -> None:
    texts = read(chosen=f"{TALK} So it is.", rejected=f"{TALK} So what?")
    assert (texts.prompt, texts.answers) == (TALK, [" So it is.", " So what?"])


def test_answers_that_differ_in_an_earlier_turn_keep_the_rest_of_the_dialogue() -> None:
    start = "Human: a\n\nAssistant:"
    texts = read(chosen=f"{start} b\n\nHuman: c\n\nAssistant: d", rejected=f"{start} x\n\nHuman: c\n\nAssistant: y")
    assert (texts.prompt, texts.answers[1]) == (start, " x\n\nHuman: c\n\nAssistant: y")


def test_the_prompt_of_other_texts_ends_before_a_word() -> None:
    texts = read(chosen="The sky is blue.", rejected="The sky is black.")
    assert (texts.prompt, texts.answers) == ("The sky is", [" blue.", " black."])


def test_texts_without_a_common_beginning_are_refused() -> None:
    with pytest.raises(DataError, match="begins differently from chosen, and there is no column with the prompt"):
        read(chosen="Yes.", rejected="No.")


def test_another_text_column_may_be_the_prompt_so_nothing_is_guessed() -> None:
    with pytest.raises(DataError, match="prompt: no such column; found: request, chosen, rejected"):
        read(request="hi", chosen="The sky is blue.", rejected="The sky is black.")


def test_a_type_that_writes_turns_names_the_types_that_read_such_rows() -> None:
    with pytest.raises(DataError, match=r"type: chat_template\.dialogue"):
        read("chatml", chosen="The sky is blue.", rejected="The sky is black.")


def test_a_prompt_that_is_named_is_required() -> None:
    with pytest.raises(DataError, match="ask: no such column"):
        read(options=PreferenceDataset(field_prompt="ask"), chosen="The sky is blue.", rejected="The sky is black.")
