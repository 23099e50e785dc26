"""Pieces of text become examples in which each token has the weight and the reason of its piece."""

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
    """Return a tokenizer with a, b, c = 0, 1, 2 and <s>, </s> = 3, 4; `pattern` has the special tokens that it adds."""
    core = Tokenizer(models.WordLevel({"a": 0, "b": 1, "c": 2}, unk_token="c"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.add_special_tokens(["<s>", "</s>"])
    core.post_processor = processors.TemplateProcessing(single=pattern, special_tokens=[("<s>", 3), ("</s>", 4)])
    return PreTrainedTokenizerFast(tokenizer_object=core, **({"bos_token": "<s>", "eos_token": "</s>"} | special))


def segments_of(*row: Piece, pattern: str = "<s> $A", special: bool = True) -> list[tuple[list[int], list[float], int]]:
    """Return (tokens, weights, fork) of each segment of the example of a row."""
    (example,) = tokenized(words(pattern), [row], special)
    return [(s.tokens.tolist(), s.weights.tolist(), s.fork) for s in example.segments]


def test_prompt_is_the_context_of_every_completion() -> None:
    row = [Piece.prompt("a b"), Piece("c"), Piece.end(), Piece("a", 0.5, branch=2), Piece.end(0.0, branch=2)]
    assert segments_of(*row) == [([3, 0, 1], [0, 0, 0], 0), ([2, 4], [1, 1], 3), ([0, 4], [0.5, 0], 3)]


def test_text_without_a_prompt_is_one_completion() -> None:
    assert segments_of(Piece("a"), Piece("b", 0.0), Piece("c")) == [([], [], 0), ([3, 0, 1, 2], [1, 1, 0, 1], 0)]
    assert segments_of(Piece.prompt("a b")) == [([3, 0, 1], [0, 0, 0], 0)]
    assert segments_of() == [([], [], 0)]


@pytest.mark.parametrize("pattern", ["<s> $A </s>", "<s> $A"])
def test_end_token_of_the_tokenizer_is_added_only_for_end_pieces(pattern: str) -> None:
    row = [Piece.prompt("a"), Piece("b"), Piece.end()]
    assert segments_of(*row, pattern=pattern) == [([3, 0], [0, 0], 0), ([1, 4], [1, 1], 2)]
    assert segments_of(*row, pattern=pattern, special=False) == [([0], [0], 0), ([1, 4], [1, 1], 1)]


def test_end_token_is_not_duplicated() -> None:
    assert segments_of(Piece("a </s>", 0.0), Piece.end()) == [([], [], 0), ([3, 0, 4], [0, 0, 1], 0)]


def test_notes_have_the_end_and_the_reason_of_each_piece() -> None:
    (example,) = tokenized(
        words(), [[Piece.prompt("a b"), Piece("", why="empty"), Piece("c", why="answer"), Piece.end()]]
    )
    assert [s.notes for s in example.segments] == [[(3, "prompt")], [(1, "answer"), (2, "end token")]]


def test_end_piece_for_a_tokenizer_without_an_end_token_is_an_error() -> None:
    with pytest.raises(ModelError, match="no end token"):
        list(tokenized(words(eos_token=None), [[Piece("a"), Piece.end()]]))
    assert len(list(tokenized(words(eos_token=None), [[Piece("a")]]))) == 1


def test_tokenizer_whose_special_tokens_change_the_text_is_an_error() -> None:
    def strange(texts: list[str], add_special_tokens: bool, **options: Any) -> dict[str, Any]:
        return {"input_ids": [[7] if add_special_tokens else [1] for _ in texts]}

    with pytest.raises(ModelError, match="can't be distinguished"):
        list(tokenized(strange, [[Piece("a")]]))


@given(
    st.lists(st.lists(st.tuples(st.sampled_from(["a", "b c", "", None]), st.integers(0, 3)), max_size=5), max_size=9)
)
@settings(max_examples=100, deadline=None)
def test_rows_tokenized_in_batch_equal_rows_tokenized_alone(shapes: list[list[tuple[str | None, int]]]) -> None:
    rows = [[Piece(text, float(branch > 1), branch=branch) for text, branch in shape] for shape in shapes]
    together = list(tokenized(words(), rows))
    alone = [example for row in rows for example in tokenized(words(), [row])]
    assert len(together) == len(alone) == len(rows)
    for one, other in zip(together, alone, strict=True):
        for a, b in itertools.zip_longest(one.segments, other.segments):
            assert (a.tokens.tolist(), a.weights.tolist(), a.fork) == (b.tokens.tolist(), b.weights.tolist(), b.fork)


@pytest.mark.parametrize(("length", "ahead"), [(1, tokenize.ROWS), (tokenize.CHARACTERS // 4, 4)])
def test_at_most_one_batch_of_rows_is_read_ahead(length: int, ahead: int) -> None:
    read = 0

    def rows() -> Iterator[list[Piece]]:
        nonlocal read
        while True:
            read += 1
            yield [Piece("a" * length)]

    next(tokenized(words(), rows()))
    assert read == ahead
