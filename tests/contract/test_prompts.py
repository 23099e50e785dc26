"""Pieces of text become examples: each token with the weight and the reason of its piece."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast
from tunesmith_engine.data import tokenize

from tunesmith import ModelError, Piece, tokenized


def words(pattern: str = "<s> $A", **special: Any) -> PreTrainedTokenizerFast:
    """Words a, b, c = 0, 1, 2; <s>, </s> = 3, 4; `pattern` is what it adds itself."""
    core = Tokenizer(models.WordLevel({"a": 0, "b": 1, "c": 2}, unk_token="c"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.add_special_tokens(["<s>", "</s>"])
    core.post_processor = processors.TemplateProcessing(single=pattern, special_tokens=[("<s>", 3), ("</s>", 4)])
    return PreTrainedTokenizerFast(tokenizer_object=core, **({"bos_token": "<s>", "eos_token": "</s>"} | special))


def made(*row: Piece, pattern: str = "<s> $A", special: bool = True) -> list[tuple[list[int], list[float], int]]:
    """(tokens, weights, fork) of each segment."""
    (example,) = tokenized(words(pattern), [row], special)
    return [(s.tokens.tolist(), s.weights.tolist(), s.fork) for s in example.segments]


def test_a_prompt_is_context_of_every_completion() -> None:
    row = [Piece.prompt("a b"), Piece("c"), Piece.end(), Piece("a", 0.5, branch=2), Piece.end(0.0, branch=2)]
    assert made(*row) == [([3, 0, 1], [0, 0, 0], 0), ([2, 4], [1, 1], 3), ([0, 4], [0.5, 0], 3)]


def test_a_text_without_prompt_is_one_completion() -> None:
    assert made(Piece("a"), Piece("b", 0.0), Piece("c")) == [([], [], 0), ([3, 0, 1, 2], [1, 1, 0, 1], 0)]
    assert made(Piece.prompt("a b")) == [([3, 0, 1], [0, 0, 0], 0)]
    assert made() == [([], [], 0)]


@pytest.mark.parametrize("pattern", ["<s> $A </s>", "<s> $A"])
def test_what_the_tokenizer_puts_after_a_text_stands_only_where_a_piece_says_so(pattern: str) -> None:
    row = [Piece.prompt("a"), Piece("b"), Piece.end()]
    assert made(*row, pattern=pattern) == [([3, 0], [0, 0], 0), ([1, 4], [1, 1], 2)]
    assert made(*row, pattern=pattern, special=False) == [([0], [0], 0), ([1, 4], [1, 1], 1)]


def test_an_end_token_is_not_doubled() -> None:
    assert made(Piece("a </s>", 0.0), Piece.end()) == [([], [], 0), ([3, 0, 4], [0, 0, 1], 0)]


def test_notes_say_where_each_piece_ends_and_why() -> None:
    (example,) = tokenized(
        words(), [[Piece.prompt("a b"), Piece("", why="empty"), Piece("c", why="answer"), Piece.end()]]
    )
    assert [s.notes for s in example.segments] == [[(3, "prompt")], [(1, "answer"), (2, "end token")]]


def test_a_tokenizer_without_the_end_token_asked_for_is_refused() -> None:
    with pytest.raises(ModelError, match="no end token"):
        list(tokenized(words(eos_token=None), [[Piece("a"), Piece.end()]]))
    assert len(list(tokenized(words(eos_token=None), [[Piece("a")]]))) == 1


def test_a_tokenizer_that_changes_a_text_with_its_special_tokens_is_refused() -> None:
    def strange(texts: list[str], add_special_tokens: bool, **options: Any) -> dict[str, Any]:
        return {"input_ids": [[7] if add_special_tokens else [1] for _ in texts]}

    with pytest.raises(ModelError, match="can't be told apart"):
        list(tokenized(strange, [[Piece("a")]]))


@given(
    st.lists(st.lists(st.tuples(st.sampled_from(["a", "b c", "", None]), st.integers(0, 3)), max_size=5), max_size=9)
)
@settings(max_examples=100, deadline=None)
def test_rows_tokenised_together_are_those_tokenised_alone(shapes: list[list[tuple[str | None, int]]]) -> None:
    rows = [[Piece(text, float(branch > 1), branch=branch) for text, branch in shape] for shape in shapes]
    together = list(tokenized(words(), rows))
    alone = [example for row in rows for example in tokenized(words(), [row])]
    assert len(together) == len(alone) == len(rows)
    for one, other in zip(together, alone, strict=True):
        for a, b in itertools.zip_longest(one.segments, other.segments):
            assert (a.tokens.tolist(), a.weights.tolist(), a.fork) == (b.tokens.tolist(), b.weights.tolist(), b.fork)


@pytest.mark.parametrize(("length", "ahead"), [(1, tokenize.ROWS), (tokenize.CHARACTERS // 4, 4)])
def test_no_more_is_read_ahead_than_a_call_takes(length: int, ahead: int) -> None:
    read = 0

    def rows() -> Iterator[list[Piece]]:
        nonlocal read
        while True:
            read += 1
            yield [Piece("a" * length)]

    next(tokenized(words(), rows()))
    assert read == ahead
