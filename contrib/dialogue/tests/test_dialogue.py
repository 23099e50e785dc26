"""Only the text of the trained speaker is trained, and lines without a speaker are refused."""

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
    """Return a tokenizer with one token for each byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate([*alphabet, END])}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token=END)


def split(tokenizer: Any, text: str, **options: str) -> tuple[str, str]:
    """Return the text of the example and its trained part."""
    segment = to_example(tokenizer, Row({"text": text}, "rows.jsonl:7"), DialogueDataset(**options)).segments[1]
    trained = [int(t) for t, w in zip(segment.tokens, segment.weights, strict=True) if w]
    return tokenizer.decode(segment.tokens), tokenizer.decode(trained)


def test_only_the_text_of_the_speaker_is_trained(tokenizer: Any) -> None:
    text = "A: hello\nB: hi there\nA: how are you?\nB: fine: thanks"
    assert split(tokenizer, text) == (text + END, " hi there\n fine: thanks" + END)


def test_another_speaker_can_be_trained(tokenizer: Any) -> None:
    assert split(tokenizer, "A: hello\nB: hi", trained_speaker="A")[1] == " hello\n"


def test_the_end_token_is_trained_only_after_the_speakers_line(tokenizer: Any) -> None:
    assert split(tokenizer, "B: hi\nA: bye")[1] == " hi\n"


def test_characters_of_several_bytes_are_split_correctly(tokenizer: Any) -> None:
    assert split(tokenizer, "Ä: grüß\nB: schön 😀\nA: é")[1] == " schön 😀\n"


@pytest.mark.parametrize("text", ["", "A: hello", "\n\n"])
def test_nothing_is_trained_without_the_speaker(tokenizer: Any, text: str) -> None:
    assert split(tokenizer, text) == (text + END, "")


def test_a_line_without_a_speaker_is_refused(tokenizer: Any) -> None:
    with pytest.raises(DataError, match=r"rows.jsonl:7: error\[row\]: text: line 2 has no speaker: 'hello'"):
        split(tokenizer, "B: hi\nhello")


def test_the_error_for_a_missing_column_lists_the_columns(tokenizer: Any) -> None:
    with pytest.raises(DataError, match="found: text"):
        to_example(tokenizer, Row({"text": "B: hi"}, "rows.jsonl:1"), DialogueDataset(field="dialogue"))
