"""The rewards of TRL return what TRL returns, have its options, and TRL is imported only when they are called."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from typing import Any

import pytest
import trl.rewards
from hypothesis import given, settings
from hypothesis import strategies as st
from tunesmith_trl import NAMES, functions, plugin

from tunesmith import EnvironmentProblem
from tunesmith.testing.conformance import conformance

test_conformance = conformance("trl")
TEXTS = ["\\boxed{4}", "<think>2 + 2</think>\\boxed{\\frac{8}{2}}", "$5$", "<think>a", "no answer"]
CHATS = [[{"role": "assistant", "content": text}] for text in TEXTS]
IDS = [list(range(4)), [1, 2, 1, 2, 1, 2], [3] * 9, [], [7]]
SOLUTIONS = ["4", "4", "4", "4", "no number"]
OPTIONS: dict[str, dict[str, Any]] = {
    "get_cosine_scaled_reward": {"max_len": 8},
    "get_repetition_penalty_reward": {"ngram_size": 2, "max_penalty": -2.0},
    "get_soft_overlong_punishment": {"max_completion_len": 8, "soft_punish_cache": 4},
}


def test_all_rewards_of_trl_are_offered() -> None:
    theirs = {name for names in trl.rewards._import_structure.values() for name in names}
    assert set(NAMES) == theirs
    assert plugin.offers == {"rewards": {f"trl.{name}": f"tunesmith_trl.functions:{name}" for name in NAMES}}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("completions", [TEXTS, CHATS], ids=["texts", "conversations"])
def test_a_reward_returns_what_trl_returns(name: str, completions: list[Any]) -> None:
    options = OPTIONS.get(name, {})
    theirs = getattr(trl.rewards, name)
    function = theirs(**options) if name.startswith("get_") else theirs
    expected = function(completions=CHATS, completion_ids=IDS, solution=SOLUTIONS, prompts=TEXTS)
    ours = getattr(functions, name)(
        completions=completions, completion_ids=IDS, solution=SOLUTIONS, prompts=TEXTS, **options
    )
    assert ours == expected and len(ours) == len(TEXTS)


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("get_")])
def test_options_are_the_arguments_of_trl(name: str) -> None:
    def shown(function: Any) -> dict[str, tuple[Any, str]]:
        parameters = inspect.signature(function).parameters.values()
        return {p.name: (p.default, str(p.annotation).removeprefix("<class '").removesuffix("'>")) for p in parameters}

    ours = shown(getattr(functions, name))
    assert shown(getattr(trl.rewards, name)).items() <= ours.items()


@pytest.mark.parametrize("name", ["accuracy_reward", "reasoning_accuracy_reward", "get_cosine_scaled_reward"])
def test_rows_without_a_solution_abstain(name: str) -> None:
    reward, options = getattr(functions, name), OPTIONS.get(name, {})
    text = "<think></think>\\boxed{4}"
    scores = reward([text] * 3, completion_ids=[[1]] * 3, gold=["4", None, 5], column="gold", **options)
    assert scores[0] > 0 and scores[1] is None and scores[2] <= 0
    assert reward([text], completion_ids=[[1]], **options) == [None]


@settings(deadline=None, max_examples=30)
@given(st.text(alphabet="<>/think a\n", max_size=30))
def test_the_format_of_any_text_is_that_of_trl(text: str) -> None:
    assert functions.think_format_reward([text]) == trl.rewards.think_format_reward([[{"content": text}]])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("get_cosine_scaled_reward", {"max_len": 0}),
        ("get_repetition_penalty_reward", {"ngram_size": 0}),
        ("get_repetition_penalty_reward", {"max_penalty": 1.0}),
        ("get_soft_overlong_punishment", {"max_completion_len": 4, "soft_punish_cache": 5}),
        ("get_soft_overlong_punishment", {"max_completion_len": 4, "soft_punish_cache": -1}),
    ],
)
def test_options_that_make_no_sense_are_refused(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(reversed(options))):
        getattr(functions, name)(completions=TEXTS, completion_ids=IDS, solution=SOLUTIONS, **options)


def test_without_math_verify_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EnvironmentProblem, match="math-verify, which is not installed"):
        functions.accuracy_reward(TEXTS, solution=SOLUTIONS)


def test_trl_and_torch_are_not_imported_before_a_call() -> None:
    code = (
        "import sys, tunesmith_trl.functions; print([m for m in ('trl', 'torch', 'math_verify') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
