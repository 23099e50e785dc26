"""The comparisons of texts are those of their definitions and of the libraries that people know."""

from __future__ import annotations

import itertools
import random
import re

import pytest
from tunesmith_textmetrics.overlap import extracted, matches, normalized, pass_at_k, rouge_l, rouge_n

from tests import tiny


def test_rouge_equals_rouge_score_for_english_text() -> None:
    scorers = pytest.importorskip("rouge_score.rouge_scorer")
    scorer = scorers.RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=False)
    draw = random.Random(0)
    pairs = [(tiny.sentence(draw), tiny.sentence(draw)) for _ in range(40)]
    pairs += [("", "a b"), ("The Cat, sat!", "the cat sat"), ("x1 y2", "y2 x1"), ("one", "one two three")]
    for text, reference in pairs:
        expected = scorer.score(reference, text)
        assert rouge_n(text, reference, 1) == pytest.approx(expected["rouge1"].fmeasure)
        assert rouge_n(text, reference, 2) == pytest.approx(expected["rouge2"].fmeasure)
        assert rouge_l(text, reference) == pytest.approx(expected["rougeL"].fmeasure)


def test_rouge_knows_letters_of_other_languages() -> None:
    assert rouge_l("Üben macht Spaß", "üben macht spaß") == 1.0
    assert rouge_n("дом", "дом", 1) == 1.0


COUNTS = [(5, 2, 1), (5, 2, 3), (6, 0, 2), (6, 6, 2), (4, 3, 2), (3, 1, 3)]


@pytest.mark.parametrize(("samples", "correct", "k"), COUNTS)
def test_pass_at_k_is_the_mean_over_all_choices_of_k_samples(samples: int, correct: int, k: int) -> None:
    outcomes = [True] * correct + [False] * (samples - correct)
    choices = list(itertools.combinations(outcomes, k))
    assert pass_at_k(samples, correct, k) == pytest.approx(sum(map(any, choices)) / len(choices))


@pytest.mark.parametrize(
    ("text", "reference", "pattern", "normalize", "right"),
    [
        ("  Paris. ", "paris", None, True, True),
        ("  Paris. ", "paris", None, False, False),
        ("3.5", "35", None, True, False),
        ("The answer is 7, or the answer is 12.", "12", r"answer is (\d+)", True, True),
        ("The answer is 7, or the answer is 12.", "7", r"answer is (\d+)", True, False),
        ("no answer", "no answer", r"answer is (\d+)", True, False),
        ("so 12", "12", r"\d+", True, True),
        ("\uff11\uff12", "12", None, True, True),
    ],
)
def test_exact_match(text: str, reference: str, pattern: str | None, normalize: bool, right: bool) -> None:
    compiled = None if pattern is None else re.compile(pattern)
    assert matches(text, ["other", reference], compiled, normalize) is right


def test_a_group_that_takes_no_part_gives_the_match() -> None:
    assert extracted("b", re.compile("(a)|b")) == "b"
    assert normalized(" A  b\n") == "a b"
