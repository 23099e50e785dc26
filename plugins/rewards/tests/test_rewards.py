"""Each reward is its definition, abstains where a row has no answer, and refuses options that make no sense."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
import typing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tunesmith_rewards.answers import exact_match, regex
from tunesmith_rewards.extract import BOXED, last_boxed, normalized
from tunesmith_rewards.tags import format_reward

from tunesmith.testing.conformance import conformance

test_conformance = conformance("rewards")


def message(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


# exact_match


@pytest.mark.parametrize(
    ("completion", "answer", "options", "score"),
    [
        ("Paris", "Paris", {}, 1.0),
        (" Paris\n", "Paris", {}, 1.0),
        (" Paris\n", "Paris", {"ignore_whitespace": False}, 0.0),
        ("paris", "Paris", {}, 0.0),
        ("paris", "Paris", {"ignore_case": True}, 1.0),
        ("Paris!", "Paris", {}, 0.0),
        ("Paris!", "Paris", {"ignore_punctuation": True}, 1.0),
        ("New  York", "New York", {}, 1.0),
        ("-1.5", "15", {"ignore_punctuation": True}, 0.0),
        ("-1.5", "-1.5.", {"ignore_punctuation": True}, 1.0),
        ("1,000 km.", "1000 km", {"ignore_punctuation": True}, 1.0),
        ("4", 4, {}, 1.0),
        ("4", 4.0, {}, 1.0),
        ("4.0", 4.0, {}, 1.0),
        ("5", 4.0, {}, 0.0),
        ("4", [4.5, 4.0], {}, 1.0),
        ("nan", float("nan"), {}, None),
        ("4", [None], {}, None),
        ("4", ["four", 4], {}, 1.0),
        ("5", ["four", 4], {}, 0.0),
        ("so \\boxed{3}, no, \\boxed{\\frac{1}{2}}", "\\frac{1}{2}", {"extract": "boxed"}, 1.0),
        ("so \\boxed{3}, no, \\boxed{4}", "3", {"extract": "boxed"}, 0.0),
        ("3", "3", {"extract": "boxed"}, 0.0),
        ("It is 3 or 4.\n#### 12", "6 * 2 = 12\n#### 12", {"extract": "####"}, 1.0),
        ("#### 11\n#### 12", "12", {"extract": "####"}, 1.0),
        ("\\boxed{12}", "6 * 2 = 12\n#### 12", {"extract": "boxed", "extract_gold": "####"}, 1.0),
        ("\\boxed{12}", "twelve", {"extract": "boxed", "extract_gold": "####"}, None),
        ("the answer is 7, no, the answer is 8", "8", {"extract": r"answer is (\d+)"}, 1.0),
        ("1 2 3", "3", {"extract": r"\d"}, 1.0),
        ("", "", {}, 1.0),
        ("Paris", None, {}, None),
    ],
)
def test_exact_match_compares_answers(
    completion: str, answer: Any, options: dict[str, Any], score: float | None
) -> None:
    assert exact_match([completion], answer=[answer], prompts=["?"], **options) == [score]
    assert exact_match([message(completion)], answer=[answer], **options) == [score]
    assert exact_match([completion], gold=[answer], column="gold", **options) == [score]


def test_rewards_with_a_column_abstain_if_no_row_has_it() -> None:
    assert exact_match(["a", "b"]) == [None, None] == regex(["a", "b"], pattern="a", column="answer")


def test_a_column_of_mappings_is_read_by_the_name_of_its_key() -> None:
    rows = [{"gold": {"answer": "4"}}, {"gold": None}, None]
    assert exact_match(["4", "4", "4"], column="model.gold.answer", model=rows) == [1.0, None, None]
    assert exact_match(["4"], column="model.gold", **{"model.gold": ["4"], "model": [{"gold": "5"}]}) == [1.0]
    assert exact_match(["4"], column="model.gold") == [None]


@given(st.text(), st.tuples(st.booleans(), st.booleans(), st.booleans()))
def test_a_text_equals_itself_and_normalization_changes_nothing_twice(
    text: str, ignored: tuple[bool, bool, bool]
) -> None:
    once = normalized(text, *ignored)
    assert exact_match([text], answer=[text]) == [1.0]
    assert not ignored[1] or normalized(once, False, *ignored[1:]) == once


@given(st.decimals(-(10**6), 10**6, places=3), st.decimals(-(10**6), 10**6, places=3))
def test_different_numbers_stay_different_without_punctuation(one: Any, other: Any) -> None:
    texts = [f"It is {one:,}." for one in (one, other)]
    assert exact_match(texts[:1], answer=texts[1:], ignore_punctuation=True) == [float(f"{one}" == f"{other}")]


@given(st.text("ab{}\\ "), st.text("ab ", min_size=1))
def test_the_last_box_is_read_after_any_text(before: str, content: str) -> None:
    before = before.rstrip("\\")
    assert last_boxed(f"{before}\\boxed{{{content}}} and so on") == content


@given(st.text("\\bo{} "), st.lists(st.sampled_from(["\\boxed{", "\\fbox {", "}", "{", "\\", "a"]), max_size=12))
def test_the_last_box_is_the_last_one_whose_braces_are_balanced(before: str, parts: list[str]) -> None:
    def balanced(content: str) -> int | None:
        depth, place = 1, 0
        while place < len(content):
            if content[place] == "\\":
                place += 2
                continue
            depth += {"{": 1, "}": -1}.get(content[place], 0)
            if not depth:
                return place
            place += 1
        return None

    text = before + "".join(parts)
    contents = [text[match.end() :] for match in BOXED.finditer(text)]
    ends = [(content, end) for content in contents if (end := balanced(content)) is not None]
    assert last_boxed(text) == (ends[-1][0][: ends[-1][1]] if ends else None)


@pytest.mark.parametrize("part", ["\\boxed{", "\\boxed{{", "{", "\\boxed{a}", "\\"])
def test_no_text_takes_long_to_search_for_a_box(part: str) -> None:
    started = time.process_time()
    last_boxed(part * (100_000 // len(part)))
    assert time.process_time() - started < 1


@given(st.recursive(st.text("ab"), lambda inner: st.lists(inner, max_size=3).map(lambda p: "{" + "".join(p) + "}")))
def test_braces_within_a_box_belong_to_its_content(content: str) -> None:
    assert last_boxed("\\boxed{" + content + "}") == content


# regex


@pytest.mark.parametrize(
    ("completion", "options", "score"),
    [
        ("a cat", {"pattern": "c.t"}, 1.0),
        ("a cat", {"pattern": "c.t", "full": True}, 0.0),
        (" cat\n", {"pattern": "c.t", "full": True}, 1.0),
        ("a CAT", {"pattern": "cat"}, 0.0),
        ("a CAT", {"pattern": "cat", "ignore_case": True}, 1.0),
        ("a\nb", {"pattern": "a.b"}, 1.0),
        ("a cat", {"pattern": ["cat", "dog", "a", "b"]}, 0.5),
        ("it is 3, no, it is 4", {"pattern": r"is (\d)", "column": "answer"}, 1.0),
        ("it is 4, no, it is 3", {"pattern": r"is (\d)", "column": "answer"}, 0.0),
        ("it is 4", {"pattern": r"is (\d)", "column": "either"}, 1.0),
        ("it is 5", {"pattern": r"is (\d)", "column": "either"}, 0.0),
        ("it is 4", {"pattern": r"is (\d)", "column": "answer"}, 1.0),
        ("it is 4", {"pattern": [r"is (\d)", "it"], "column": "answer"}, 0.5),
    ],
)
def test_regex_counts_patterns(completion: str, options: dict[str, Any], score: float) -> None:
    assert regex([completion, message(completion)], answer=[4, 4.0], either=[[3, " 4"], [4.0]], **options) == [
        score, score,
    ]  # fmt: skip


@pytest.mark.parametrize("pattern", ["(", "[a", "*", "", [], ["a", "("], ["a", ""], [1]])
def test_an_invalid_regular_expression_is_an_error_with_the_option(pattern: Any) -> None:
    with pytest.raises(ValueError, match=r"^pattern"):
        regex(["a"], pattern=pattern)
    if isinstance(pattern, str) and pattern:
        with pytest.raises(ValueError, match=r"^extract: .* is not a regular expression"):
            exact_match(["a"], answer=["a"], extract=pattern)


# format


RIGHT = "<think>so</think>\n<answer>4</answer>"


@pytest.mark.parametrize(
    ("completion", "options", "score", "share"),
    [
        (RIGHT, {}, 1, 1),
        (f"Well. {RIGHT}", {}, 0, 2 / 3),
        (f"Well. {RIGHT}", {"text_outside": True}, 1, 1),
        ("<answer>4</answer><think>so</think>", {}, 0, 2 / 3),
        ("<think>so<answer>4</answer></think>", {"text_outside": True}, 0, 2 / 3),
        ("<think>so</think>", {}, 0, 1 / 3),
        ("<think></think><answer> </answer>", {}, 0, 0),
        (f"{RIGHT}<answer>5</answer>", {"text_outside": True}, 0, 1 / 3),
        ("</think>so<think><answer>4</answer>", {"text_outside": True}, 0, 1 / 3),
        ("so</think>It is 4.", {"tags": ["think"], "text_outside": True, "opened": True}, 1, 1),
        ("<think>so</think>It is 4.", {"tags": ["think"], "text_outside": True, "opened": True}, 0, 0),
        ("", {}, 0, 0),
    ],
)
def test_format_is_the_tags_in_order(completion: str, options: dict[str, Any], score: float, share: float) -> None:
    assert format_reward([completion, message(completion)], **options) == [score, score]
    assert format_reward([completion], partial=True, **options) == [pytest.approx(share)]


@given(st.lists(st.sampled_from(["<think>", "</think>", "<answer>", "</answer>", "x", " "]), max_size=9))
def test_partial_credit_is_a_share_and_is_full_where_the_format_is_right(parts: list[str]) -> None:
    text = "".join(parts)
    (share,), (score,) = format_reward([text], partial=True), format_reward([text])
    assert 0 <= share <= 1 and (share == 1) == (score == 1)


@pytest.mark.parametrize("tags", [[], ["a", "a"], ["<think>"], [""]])
def test_tags_that_are_not_names_are_refused(tags: list[str]) -> None:
    with pytest.raises(ValueError, match=r"^tags"):
        format_reward(["a"], tags=tags)


# all of them


def test_every_reward_that_is_offered_is_a_function_that_takes_all_columns() -> None:
    import inspect

    from tunesmith_rewards import plugin

    for target in plugin.offers["rewards"].values():
        module, _, name = str(target).partition(":")
        function = getattr(__import__(module, fromlist=[name]), name)
        parameters = inspect.signature(function).parameters.values()
        assert any(p.kind is p.VAR_KEYWORD for p in parameters)
        options = [p for p in parameters if p.kind is p.KEYWORD_ONLY]
        assert {option.name for option in options} <= typing.get_type_hints(function).keys()


def test_importing_the_functions_imports_neither_torch_nor_numpy() -> None:
    code = (
        "import sys, tunesmith_rewards.answers, tunesmith_rewards.tags, tunesmith_rewards.lengths;"
        "print([m for m in ('torch', 'numpy', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.skipif("TUNESMITH_TEST_DATA" not in os.environ, reason="needs the test data")
def test_solutions_of_gsm8k_match_their_own_answers() -> None:
    lines = Path(os.environ["TUNESMITH_TEST_DATA"], "gsm8k/grpo.jsonl").read_text("utf-8").splitlines()
    answers = [json.loads(line)["answer"] for line in lines]
    scores = exact_match(answers, answer=answers, extract="####")
    other = exact_match(answers[1:] + answers[:1], answer=answers, extract="####")
    assert len(scores) > 1000 and set(scores) == {1.0}
    assert math.fsum(score or 0 for score in other) < 0.1 * len(other)
