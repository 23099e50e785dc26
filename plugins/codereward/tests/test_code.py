"""The reward is the share of tests that pass; rows without tests abstain, and tests that can't be read are errors."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tunesmith_codereward.cases import RowTests, read_tests
from tunesmith_codereward.reward import code, last_block

from tunesmith.testing.conformance import conformance

test_conformance = conformance("codereward")
ISOLATION = "python"
"""So that these tests run on any system; test_fence.py is about the fences of the kernel."""


def score(source: str, tests: Any, **options: Any) -> float | None:
    completion = f"Here it is:\n```python\n{source}\n```\nDone."
    (value,) = code([completion], tests=[tests], **{"isolation": ISOLATION, "timeout": 10.0} | options)
    return value


ADD = "def add(a, b):\n    return a + b"
CHECK = "def check(f):\n    assert f(1, 2) == 3\ncheck(add)"
ECHO = "a, b = map(int, input().split())\nprint(a + b)"


@pytest.mark.parametrize(
    ("source", "tests", "value"),
    [
        (ADD, ["assert add(1, 2) == 3", "assert add(0, 0) == 0"], 1.0),
        (ADD, ["assert add(1, 2) == 4", "assert add(0, 0) == 0"], 0.5),
        (ADD, "assert add(1, 2) == 3\nassert add(1, 1) == 3\nassert add(1, 1) == 2\nassert add(2, 2) == 4", 0.75),
        (ADD, CHECK, 1.0),
        (ADD.replace("+", "-"), CHECK, 0.0),
        (ADD, ["assert sub(1, 2) == 3"], 0.0),
        (ADD, ["this is no Python", "assert add(1, 2) == 3"], 0.5),
        ("def add(a, b: return", ["assert True"], 0.0),
        ("raise ValueError", ["assert True"], 0.0),
        ("import sys; sys.exit(0)", ["assert True"], 0.0),
        ("import os; os._exit(0)", ["assert True"], 0.0),
        (f"{ADD}\nif __name__ == '__main__':\n    input()", ["assert add(1, 2) == 3"], 1.0),
        (f"{ADD}\nprint('hello')", ["assert add(1, 2) == 3"], 1.0),
        (ECHO, [{"input": "1 2\n", "output": "3\n"}, {"input": "2 2", "output": " 4  \n\n"}], 0.5),
        (ECHO, [{"input": "1 2\n", "output": "3"}, {"input": "2 2", "output": "4  \n\n"}], 1.0),
        (ECHO, {"input": "1 2", "output": 3}, 1.0),
        (ECHO, '[{"input": "1 2", "output": "3"}, {"input": "1 2", "output": "4"}]', 0.5),
        (ADD, ' ["assert add(1, 2) == 3", "assert add(1, 2) == 4"]\n', 0.5),
        (ECHO, [{"input": "", "output": "3"}], 0.0),
        ("print(3)\nraise ValueError", [{"output": "3"}], 0.0),
        ("print(3)\nexit()", [{"input": None, "output": "3"}], 1.0),
        ("if __name__ == '__main__':\n    print('ä€')", [{"output": "ä€"}], 1.0),
        ("print(input())", [{"input": "ä€", "output": "ä€"}], 1.0),
        ("import os; os._exit(97)", [{"output": "3"}], 0.0),
        ("print(open('job.json').read())", [{"output": "{}"}], 0.0),
    ],
)
def test_the_score_is_the_share_of_tests_that_pass(source: str, tests: Any, value: float) -> None:
    assert score(source, tests) == value
    assert score(source, tests, partial=False) == float(value == 1)


def test_completions_may_be_conversations_and_are_scored_in_order() -> None:
    def answer(number: int) -> list[dict[str, str]]:
        return [{"role": "assistant", "content": f"```\nx = {number}\n```"}]

    completions = [answer(number) for number in range(6)]
    tests = [[f"assert x == {number}", "assert x % 2"] for number in range(6)]
    assert code(completions, tests=tests, isolation=ISOLATION, timeout=10.0) == [0.5, 1.0] * 3


@pytest.mark.parametrize("tests", [None, "", " \n", [], "[]"])
def test_a_row_without_tests_abstains(tests: Any) -> None:
    assert score(ADD, tests) is None
    assert code(["```\nx\n```"], isolation=ISOLATION) == [None]


def test_a_completion_without_code_scores_zero() -> None:
    assert code(["no code", ""], tests=[["assert True"]] * 2, isolation=ISOLATION) == [0.0, 0.0]


@pytest.mark.parametrize(
    ("text", "block"),
    [
        ("```python\na\n```", "a\n"),
        ("```py\na\n```\nthen\n```Python3\nb\n```", "b\n"),
        ("```python\na\n```\nprints\n```text\nb\n```", "a\n"),
        ("```python\na\n```\nor\n```\nb\n```", "a\n"),
        ("```\na\n```\nor\n```\nb\n```", "b\n"),
        ("```text\na\n```", None),
        ("```python\na", None),
        ("<think>```python\na\n```</think>none", None),
        ("~~~python\na = '```'\n~~~", "a = '```'\n"),
        ("````python\na\n```\nb\n````", "a\n```\nb\n"),
        ("- so:\n  ```python\n  a:\n    b\n  ```", "a:\n  b\n"),
        ("```python\r\na\r\n```\r\n", "a\r\n"),
        ("```python\na\n`````", "a\n"),
        ("~~~python\na\n```\nb\n```", "b\n"),
        ("`````python\na\n````python\nb\n````", "b\n"),
        ("```print``` prints\n```python\na\n```", "a\n"),
        ("a ```b``` c", None),
    ],
)
def test_the_code_is_the_last_python_block(text: str, block: str | None) -> None:
    assert last_block(text) == block


@given(st.text(alphabet="`~pythona\n <>/k"), st.text(alphabet="ab\n ="))
def test_a_block_at_the_end_is_read_after_any_text(before: str, body: str) -> None:
    before = before.replace("`", "").replace("~", "")
    assert last_block(f"{before}\n```python\n{body}\n```") == f"{body}\n"


@pytest.mark.parametrize("part", ["`", "~~~~", "```python x\n", "````x\n```\n", "```\n", "``` \n~~~x\n", " \t", "a`"])
def test_no_text_takes_long_to_search_for_code(part: str) -> None:
    started = time.process_time()
    last_block(part * (200_000 // len(part)) + "\n" + "a\n" * 50_000)
    last_block("\n".join("`" * number + "x" for number in range(700)))
    assert time.process_time() - started < 3


@pytest.mark.parametrize("tests", [3, True, [3], ["assert True", {"output": "3"}], [["assert True"]], [{"input": "3"}]])
def test_tests_that_can_not_be_read_are_an_error_with_the_forms_that_can(tests: Any) -> None:
    with pytest.raises(ValueError, match="write assert statements"):
        score(ADD, tests)


@pytest.mark.parametrize(
    "tests", ["# none", "add(1, 2) == 3", ["add(1, 2) == 3"], [""], ["assert True", "'3'"], ['{"output": "3"}']]
)
def test_tests_that_any_code_would_pass_are_an_error(tests: Any) -> None:
    with pytest.raises(ValueError, match="checks nothing, so any code would pass it"):
        score(ADD, tests)


@pytest.mark.parametrize("case", [{"input": ["1"], "output": "1"}, {"output": ["3"]}, {"output": {"a": 1}}])
def test_a_case_whose_values_are_no_texts_is_an_error(case: Any) -> None:
    with pytest.raises(ValueError, match=r"must be a text, got (list|dict)"):
        score(ECHO, [case])


def test_a_text_that_is_not_python_is_an_error() -> None:
    with pytest.raises(ValueError, match="are not valid Python"):
        score(ADD, "assert add(1, 2) ==")


@given(st.lists(st.integers(0, 9), min_size=1, max_size=5))
def test_assert_statements_of_a_text_are_those_of_a_list(numbers: list[int]) -> None:
    asserts = [f"assert x == {number}" for number in numbers]
    assert read_tests("\n".join(asserts)) == read_tests(asserts) == RowTests(asserts=tuple(asserts))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"isolation": "none"}, "write kernel or python"),
        ({"timeout": 0.0}, "timeout must be positive"),
        ({"timeout": float("inf")}, "at most 3600 seconds"),
        ({"memory": 8}, "at least 64 MiB"),
        ({"processes": 0}, "at least 1"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        score(ADD, ["assert True"], **options)


def test_statements_before_an_endless_one_count_and_cases_after_one_are_not_run() -> None:
    started = time.monotonic()
    endless = "def f(x):\n    while x: pass\n    return x"
    assert score(endless, ["assert f(0) == 0", "assert f(1)", "assert f(0) == 0"], timeout=1.0) == pytest.approx(1 / 3)
    cases = [{"input": f"{n}", "output": f"{n}"} for n in (0, 1, 0, 1, 1, 1, 1)]
    assert score("x = int(input())\nwhile x: pass\nprint(x)", cases, timeout=1.0) == pytest.approx(1 / 7)
    assert time.monotonic() - started < 15
