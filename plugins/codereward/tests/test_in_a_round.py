"""Code is run from the process that scores a round."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests import tiny
from tunesmith.cli import main

ROWS = [{"prompt": "Set x to 4.", "tests": ["assert x == 4"]}, {"prompt": "Print 6.", "tests": [{"output": "6"}]}]


def config(folder: Path, rewards: list[Any]) -> Path:
    return tiny.rewards_config(folder, ROWS * 4, rewards)


@pytest.mark.slow
def test_code_of_completions_is_run(tmp_path: Path) -> None:
    """A tiny model writes no code, so a few completions of a file are scored, as `tunesmith rewards test` does."""
    path = config(tmp_path, [{"name": "code", "isolation": "python"}])
    answers = ["```\nx = 4\n```", "```\nx = 5\n```", "x = 4"]
    rows = [{**ROWS[0], "completion": answer} for answer in answers]
    tiny.write_rows(tmp_path / "answers.jsonl", rows)
    result = CliRunner().invoke(
        main, ["rewards", "test", str(path), "--completions", str(tmp_path / "answers.jsonl"), "--json"]
    )
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert [row["rewards"]["code"] for row in report["rows"]] == [1.0, 0.0, 0.0]
