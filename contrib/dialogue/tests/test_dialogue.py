from __future__ import annotations

from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from tunesmith_dialogue import DialogueDataset, to_example

from tunesmith import DataError, Row

END = "<|end|>"


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """One token for each byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate([*alphabet, END])}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token=END)


def split(tokenizer: Any, text: str, **options: str) -> tuple[str, str]:
    """The whole text of the example, and the trained part of it."""
    segment = to_example(tokenizer, Row({"text": text}, "rows.jsonl:7"), DialogueDataset(**options)).segments[1]
    trained = [int(t) for t, w in zip(segment.tokens, segment.weights, strict=True) if w]
    return tokenizer.decode(segment.tokens), tokenizer.decode(trained)


def test_the_words_of_the_speaker_are_trained_and_nothing_else(tokenizer: Any) -> None:
    text = "A: hello\nB: hi there\nA: how are you?\nB: fine: thanks"
    assert split(tokenizer, text) == (text + END, " hi there\n fine: thanks" + END)


def test_another_speaker_can_be_trained(tokenizer: Any) -> None:
    assert split(tokenizer, "A: hello\nB: hi", trained_speaker="A")[1] == " hello\n"


def test_the_end_is_trained_only_where_the_speaker_has_the_last_word(tokenizer: Any) -> None:
    assert split(tokenizer, "B: hi\nA: bye")[1] == " hi\n"


def test_text_of_several_bytes_is_cut_at_the_right_place(tokenizer: Any) -> None:
    assert split(tokenizer, "Ä: grüß\nB: schön 😀\nA: é")[1] == " schön 😀\n"


@pytest.mark.parametrize("text", ["", "A: hello", "\n\n"])
def test_without_the_speaker_nothing_is_trained(tokenizer: Any, text: str) -> None:
    assert split(tokenizer, text) == (text + END, "")


def test_a_line_without_a_speaker_is_named(tokenizer: Any) -> None:
    with pytest.raises(DataError, match=r"rows.jsonl:7: error\[row\]: text: line 2 names no speaker: 'hello'"):
        split(tokenizer, "B: hi\nhello")


def test_a_row_without_the_column_says_which_there_are(tokenizer: Any) -> None:
    with pytest.raises(DataError, match="found: text"):
        to_example(tokenizer, Row({"text": "B: hi"}, "rows.jsonl:1"), DialogueDataset(field="dialogue"))
