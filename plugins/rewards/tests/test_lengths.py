"""Rewards for lengths are their definitions, and refuse options that make no sense."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tunesmith_rewards.lengths import length, repetition_penalty, soft_overlong


@pytest.mark.parametrize(
    ("size", "options", "score"),
    [
        (5, {"minimum": 5}, 1.0),
        (4, {"minimum": 5}, 0.0),
        (5, {"maximum": 5}, 1.0),
        (6, {"maximum": 5}, 0.0),
        (6, {"maximum": 5, "soft": 4}, 0.75),
        (3, {"minimum": 5, "maximum": 8, "soft": 4}, 0.5),
        (20, {"minimum": 5, "maximum": 8, "soft": 4}, 0.0),
        (10, {"target": 10}, 1.0),
        (5, {"target": 10}, 0.5),
        (12, {"target": 10, "soft": 4}, 0.5),
        (0, {"maximum": 0}, 1.0),
    ],
)
def test_length_is_full_within_its_bounds_and_falls_outside(size: int, options: dict[str, Any], score: float) -> None:
    words, letters = " ".join(["word"] * size), "x" * size
    assert length([""], [[1] * size], **options) == [score]
    assert length([words], [[]], unit="words", **options) == [score]
    assert length([[{"role": "assistant", "content": letters}]], [[]], unit="characters", **options) == [score]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "write either target, or minimum"),
        ({"target": 3, "minimum": 2}, "write either"),
        ({"minimum": 3, "maximum": 2}, "minimum: 3 is larger than maximum: 2"),
        ({"minimum": -1}, "at least 0"),
        ({"target": 0}, "target at least 1"),
        ({"maximum": 1, "soft": -1}, "at least 0"),
        ({"maximum": 1, "unit": "lines"}, "unit: 'lines'"),
    ],
)
def test_lengths_that_make_no_sense_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        length(["a"], [[1]], **options)


@given(st.integers(1, 50), st.integers(0, 50), st.integers(0, 200))
def test_soft_overlong_is_that_of_trl(cache: int, more: int, size: int) -> None:
    from trl.rewards import get_soft_overlong_punishment

    theirs = get_soft_overlong_punishment(cache + more, cache)([[1] * size])
    assert soft_overlong([[1] * size], max_completion_length=cache + more, cache=cache) == pytest.approx(theirs)


@given(st.lists(st.integers(0, 3), max_size=12), st.integers(1, 4))
def test_repetition_penalty_is_that_of_trl(tokens: list[int], ngram: int) -> None:
    from trl.rewards import get_repetition_penalty_reward

    theirs = get_repetition_penalty_reward(ngram, -2.0)([tokens])
    assert repetition_penalty([""], [tokens], ngram=ngram, max_penalty=-2.0) == pytest.approx(theirs)
    letters = "".join(map(str, tokens))
    assert repetition_penalty([letters], [[]], ngram=ngram, max_penalty=-2.0, unit="characters") == pytest.approx(
        theirs
    )


@pytest.mark.parametrize("cache", [0, -1, 11])
def test_a_cache_that_does_not_fit_is_refused(cache: int) -> None:
    with pytest.raises(ValueError, match="from 1 to max_completion_length: 10"):
        soft_overlong([[1]], max_completion_length=10, cache=cache)


@pytest.mark.parametrize("options", [{"ngram": 0}, {"max_penalty": 0.5}])
def test_a_positive_penalty_and_empty_ngrams_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="ngram must be at least 1"):
        repetition_penalty(["a"], [[1]], **options)
