"""Rewards score the completions of a round in its process, and wrong options are errors at their line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests import tiny
from tunesmith import TunesmithError

ROWS = [
    {"prompt": "What is 2 + 2?", "answer": "4", "model": {"gold": "4"}},
    {"prompt": "the cat", "answer": ["a", "b"]},
]


def config(folder: Path, rewards: list[Any]) -> Path:
    return tiny.rewards_config(folder, ROWS * 4, rewards)


REWARDS: list[Any] = [
    "exact_match",
    {"name": "regex", "pattern": ["x{99}"], "column": "answer"},
    {"name": "exact_match", "column": "model.gold", "label": "nested"},
    {"name": "format", "partial": True},
    {"name": "length", "target": 4},
    {"name": "soft_overlong", "max_completion_length": 8, "cache": 7, "weight": 0.5},
    {"name": "repetition_penalty", "ngram": 1},
]


def test_each_reward_is_logged(tmp_path: Path) -> None:
    tiny.train(config(tmp_path, REWARDS))
    (line,) = tiny.metrics(tmp_path / "out")
    ranges = {
        "exact_match": (0, 1), "nested": (0, 1), "regex": (0, 0), "format": (0, 1), "length": (0, 1),
        "soft_overlong": (-1, 0), "repetition_penalty": (-1, 0),
    }  # fmt: skip
    for name, (low, high) in ranges.items():
        assert low <= line[f"rewards/{name}/mean"] <= high, name
    length = line["completions/mean_length"]
    assert line["rewards/soft_overlong/mean"] == pytest.approx((1 - length) / 7)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"name": "exact_match", "colum": "answer"}, "unknown option: colum"),
    ({"name": "length", "maximum": "8"}, "has maximum: '8'"),
    ({"name": "regex"}, "pattern"),
    ({"name": "regex", "pattern": "("}, "is not a regular expression"),
    ({"name": "length"}, "has an unusable option: write either target"),
    ({"name": "exact_match", "column": "anwser"}, "reads the column 'anwser', which no row has"),
    ({"name": "regex", "pattern": "a", "column": "solution"}, "reads the column 'solution'"),
    ({"name": "exact_match", "column": "model.glod"}, "reads the column 'model.glod'"),
]


def test_wrong_options_are_errors_found_together_at_their_places(tmp_path: Path) -> None:
    rewards = [{"label": str(number), **reward} for number, (reward, _) in enumerate(WRONG)]
    path = config(tmp_path, rewards)
    with pytest.raises(TunesmithError) as caught:
        tiny.train(path)
    lines = path.read_text().splitlines()
    for number, (_, words) in enumerate(WRONG):
        (problem,) = (one for one in caught.value.problems if one.message.startswith(f"rewards.{number} "))
        assert words in problem.message
        assert lines[int(str(problem.where).split(":")[1]) - 1] == f"- label: '{number}'", problem.where
    assert "did you mean 'answer'?" in str(caught.value)
