"""Answers are compared in the process that scores a round."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests import tiny

ROWS = [{"prompt": "What is 2 + 2?", "answer": "4"}, {"prompt": "And 3 + 3?", "answer": "so\n#### 6"}]


def config(folder: Path, rewards: list[Any]) -> Path:
    return tiny.rewards_config(folder, ROWS * 4, rewards)


def test_the_reward_is_logged(tmp_path: Path) -> None:
    tiny.train(config(tmp_path, ["math"]))
    (line,) = tiny.metrics(tmp_path / "out")
    assert 0 <= line["rewards/math/mean"] <= 1
