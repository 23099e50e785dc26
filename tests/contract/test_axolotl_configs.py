"""Example configs of Axolotl, as they are: most of them pass `check`, and the others fail for a reason of one line."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from tunesmith.api import load, start
from tunesmith.errors import Problem, TunesmithError

BAR = 0.45
"""The least share of the configs that pass."""


@pytest.fixture(scope="module")
def problems() -> dict[str, list[Problem]]:
    """Return the problems of each config by its name."""
    folder = os.environ.get("TUNESMITH_TEST_DATA")
    if not folder:
        pytest.skip("TUNESMITH_TEST_DATA is not set: no configs of Axolotl")
    problems_by_name: dict[str, list[Problem]] = {}
    for path in sorted(Path(folder, "axolotl-yaml").glob("*.y*ml")):
        problems_by_name[path.name] = []
        try:
            start(load(path))
        except TunesmithError as error:  # a missing package is one of the machine, not of the config
            problems_by_name[path.name] = [problem for problem in error.problems if problem.code != "package"]
    return problems_by_name


def test_configs_of_axolotl_pass_unmodified(problems: dict[str, list[Problem]]) -> None:
    passing = [name for name, of_file in problems.items() if not of_file]
    reasons = Counter(reason for of_file in problems.values() for reason in {p.message for p in of_file})
    share = len(passing) / len(problems)
    print(f"\n{len(passing)} of {len(problems)} configs pass ({share:.0%}); the others, by reason:")
    for reason, number in reasons.most_common():
        print(f"{number:4}  {reason}")
    assert len(problems) == 125 and len(passing) >= BAR * len(problems)


def test_the_others_fail_for_reasons_of_one_line_with_advice(problems: dict[str, list[Problem]]) -> None:
    for name, of_file in problems.items():
        for problem in of_file:
            assert "\n" not in problem.message and len(problem.message) < 200, f"{name}: {problem}"
            assert problem.help, f"{name}: {problem}"


def test_no_key_of_axolotl_is_taken_for_a_misspelling(problems: dict[str, list[Problem]]) -> None:
    guesses = [problem for of_file in problems.values() for problem in of_file if "did you mean" in str(problem.help)]
    assert not guesses
