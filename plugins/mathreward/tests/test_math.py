"""Answers are compared as mathematics, rows without an answer abstain, and nothing takes longer than its deadline."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tunesmith_mathreward.checker import Checker
from tunesmith_mathreward.reward import math

from tunesmith import EnvironmentProblem
from tunesmith.testing.conformance import conformance

test_conformance = conformance("mathreward")
HANGS = "10^{10^{10^{10}}} + 9^{9^{9^9}}"


def score(completion: str, answer: object) -> float | None:
    (value,) = math([completion], answer=[answer])
    return value


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("The answer is 12.", "12"),
        ("\\boxed{12}", 12),
        ("\\boxed{12}", "3 * 4 = 12\n#### 12"),
        ("3 * 4 = <<3*4=12>>12\n#### 12", "12"),
        ("\\boxed{\\frac{1}{2}}", "0.5"),
        ("\\boxed{0.5}", "\\frac{1}{2}"),
        ("#### \\frac12", "1/2"),
        ("\\boxed{2\\pi}", "2\\pi"),
        ("It costs $1,000.", "#### 1000"),
        ("#### 1,000", "$1000"),
        ("\\boxed{x = 4}", "4"),
        ("\\boxed{4}", "x = 4"),
        ("\\boxed{(x+1)^2}", "x^2 + 2x + 1"),
        ("\\boxed{\\{2, 1\\}}", "\\{1, 2\\}"),
        ("<think>\\boxed{3}? No.</think>\\boxed{4}", "4"),
        ("\\boxed{3}, no, \\boxed{4}", "4"),
        ("\\boxed{4}", ["four", "4"]),
        ("\\boxed{12 apples}", "12"),
        ("\\boxed{-3}", "-3"),
    ],
)
def test_equal_answers_score_one_in_any_notation(completion: str, answer: object) -> None:
    assert score(completion, answer) == 1.0
    assert math([[{"role": "assistant", "content": completion}]], answer=[answer]) == [1.0]


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("The answer is 13.", "12"),
        ("\\boxed{12}", "#### 13"),
        ("\\boxed{2}", "2\\pi"),
        ("\\boxed{3}", "-3"),
        ("", "12"),
        ("I do not know.", "12"),
        ("<think>\\boxed{4}</think>\\boxed{3}", "4"),
        ("\\boxed{4}, no, \\boxed{3}", "4"),
        ("\\boxed{[1, 2]}", "(1, 2)"),
    ],
)
def test_other_answers_score_zero(completion: str, answer: object) -> None:
    assert score(completion, answer) == 0.0


@pytest.mark.parametrize("answer", [None, "", "Monday", "####", "no answer", [], [None], ["Monday"]])
def test_a_row_whose_answer_can_not_be_parsed_abstains(answer: object) -> None:
    assert score("\\boxed{4}", answer) is None


def test_a_missing_column_abstains() -> None:
    assert math(["4", "5"]) == [None, None]


@settings(deadline=None, max_examples=60)
@given(st.integers(-(10**9), 10**9), st.integers(-(10**9), 10**9))
def test_whole_numbers_are_compared_in_every_notation(one: int, other: int) -> None:
    answers = [f"{one}", f"so\n#### {one:,}", f"\\boxed{{{one}}}", f"${one}$"]
    completions = [f"\\boxed{{{other}}}", f"#### {other}", f"#### {other:,}", f"\\boxed{{{other:,}}}"]
    assert math(completions, answer=answers) == [float(one == other)] * 4


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=200), st.text(max_size=50))
def test_any_text_has_a_score_or_abstains(text: str, answer: str) -> None:
    assert score(text, answer) in (0.0, 1.0, None)


@pytest.mark.slow
@pytest.mark.skipif("TUNESMITH_TEST_DATA" not in os.environ, reason="needs the test data")
def test_solutions_of_gsm8k_have_their_own_answers_and_no_others() -> None:
    lines = Path(os.environ["TUNESMITH_TEST_DATA"], "gsm8k/grpo.jsonl").read_text("utf-8").splitlines()
    answers = [json.loads(line)["answer"] for line in lines]
    changed = [re.sub(r"(####\s*\S*?)(\d)(\D*)$", lambda m: f"{m[1]}{(int(m[2]) + 1) % 10}{m[3]}", a) for a in answers]
    assert len(answers) > 1000 and all(one != other for one, other in zip(answers, changed, strict=True))
    assert set(math(answers, answer=answers)) == {1.0}
    assert set(math(changed, answer=answers)) == {0.0}


@pytest.mark.slow
@pytest.mark.parametrize("in_thread", [False, True])
def test_a_comparison_without_end_is_ended_and_the_next_one_works(in_thread: bool) -> None:
    checker, results = Checker(), []

    def compare() -> None:
        started = time.monotonic()
        results.append(checker.score("7", f"\\boxed{{{HANGS}}}", 1.0))
        results.append(checker.score(f"{HANGS}", "\\boxed{7}", 1.0))
        results.append(checker.score("7", "\\boxed{7}", 20.0))
        results.append(time.monotonic() - started)

    if in_thread:
        thread = threading.Thread(target=compare)
        thread.start()
        thread.join()
    else:
        compare()
    checker.close()
    assert results[0] == 0.0 and results[1] in (0.0, None) and results[2] == 1.0 and results[3] < 30


def test_threads_share_a_checker() -> None:
    checker, scores = Checker(), {}

    def compare(number: int) -> None:
        scores[number] = [checker.score(f"{number}", f"\\boxed{{{n}}}", 20.0) for n in range(5)]

    threads = [threading.Thread(target=compare, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    checker.close()
    assert scores == {number: [float(n == number) for n in range(5)] for number in range(5)}


@pytest.mark.parametrize("timeout", [0.0, -1.0, float("nan"), float("inf"), 1e20])
def test_a_timeout_has_to_be_positive(timeout: float) -> None:
    with pytest.raises(ValueError, match=r"timeout: .* must be positive"):
        math(["4"], answer=["4"], timeout=timeout)


def test_without_math_verify_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "math_verify.py").write_text("raise ImportError('No module named math_verify')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(EnvironmentProblem, match="did not start: No module named math_verify") as caught:
        Checker().score("4", "4", 1.0)
    assert 'pip install "tunesmith[math]"' in str(caught.value.problems[0].help)
