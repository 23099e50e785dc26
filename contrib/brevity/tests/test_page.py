"""The code, the commands and the tests on the page "Publish a reward" do what the page says."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import tunesmith_brevity
from click.testing import CliRunner

from tests import tiny
from tests.repo.source import ROOT
from tunesmith.cli import main

PAGE = (ROOT / "docs" / "publish-a-reward.md").read_text("utf-8")
LONG, SHORT = "one two three", "one"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.M | re.S)


def code(name: str) -> str:
    (block,) = [block for block in blocks("python") if block.startswith(f"# {name}\n")]
    return block


def names_in(name: str) -> dict[str, Any]:
    """Return the names that a block of code defines."""
    values: dict[str, Any] = {}
    exec(compile(code(name), name, "exec"), values)  # a page of this repository
    return values


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Create the folder that the page works in: its files, a model and prompts."""
    monkeypatch.chdir(tmp_path)
    tiny.model_folder(tmp_path / "models" / "my-model")
    rows = [{"prompt": f"How long is {n}?", "unit": "km"} for n in range(8)]
    (tmp_path / "data").mkdir()
    tiny.write_rows(tmp_path / "data" / "prompts.jsonl", rows)
    for name in ("units.py", "sentences.py"):
        (tmp_path / name).write_text(code(name), encoding="utf-8")
    (tmp_path / "answers.jsonl").write_text(blocks("json")[0], encoding="utf-8")
    return tmp_path


def test_the_command_prints_the_scores_shown(folder: Path) -> None:
    (folder / "run.yaml").write_text(blocks("yaml")[0], encoding="utf-8")
    (shown,) = blocks("text")
    command, _, table = shown.removeprefix("$ tunesmith ").partition("\n")
    result = CliRunner().invoke(main, command.split())
    assert result.exit_code == 0, result.output
    printed = [line.rstrip() for line in result.output.splitlines()]
    assert table.splitlines()[0] in printed
    start = printed.index(table.splitlines()[0])
    assert printed[start : start + len(table.splitlines())] == table.splitlines()


def test_each_yaml_trains(folder: Path) -> None:
    configs = blocks("yaml")
    assert len(configs) == 3
    for number, text in enumerate(configs):
        path = folder / f"run{number}.yaml"
        path.write_text(text, encoding="utf-8")
        small = ["device=cpu", "trl.max_completion_length=4", "sequence_len=64", "max_steps=1"]
        result = tiny.train(path, *small)
        assert result.steps == 1
    assert {"rewards/brevity/mean", "rewards/shortest/mean"} <= tiny.metrics(folder / "outputs" / "short")[0].keys()


def test_a_function_with_options_returns_what_its_docstring_says() -> None:
    sentences = names_in("sentences.py")["sentences"]
    assert sentences(["One. Two. Three.", "One! 2.5 km?"], at_most=2) == [0.0, 1.0]
    with pytest.raises(ValueError, match="at_most: 0"):
        sentences(["One."], at_most=0)


def test_the_package_on_the_page_is_that_of_the_repository() -> None:
    page = names_in("tunesmith_brevity/__init__.py")
    assert page["plugin"] == tunesmith_brevity.plugin and page["__doc__"] == tunesmith_brevity.__doc__
    for half in (1, 3, 50):
        assert page["brevity"]([LONG, SHORT], half=half) == tunesmith_brevity.brevity([LONG, SHORT], half=half)
    (shown,) = [tomllib.loads(block) for block in blocks("toml")]
    real = tomllib.loads((ROOT / "contrib" / "brevity" / "pyproject.toml").read_text("utf-8"))
    assert shown["build-system"] == real["build-system"] and shown["tool"] == real["tool"]
    assert shown["project"].items() <= real["project"].items()


def test_the_tests_on_the_page_pass() -> None:
    tests = {name: value for name, value in names_in("test_short_answers.py").items() if name.startswith("test_")}
    assert len(tests) == 2
    for test in tests.values():
        test()


def test_completions_on_the_page_are_rows() -> None:
    rows = [json.loads(line) for line in blocks("json")[0].splitlines()]
    scores = names_in("units.py")["has_unit"]([row["completion"] for row in rows], [row.get("unit") for row in rows])
    assert scores == [1.0, 0.0, None]
