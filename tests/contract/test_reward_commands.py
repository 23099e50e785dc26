"""`tunesmith rewards` lists rewards, and tries those of a config; options are compared with signatures."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tunesmith_engine.rewards.signature import describe, missing, problems

from tests import tiny
from tests.contract.fakes import distribution, error_of
from tests.contract.test_rewards import FUNCTIONS, config
from tunesmith.cli import main


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.model_folder(tmp_path_factory.mktemp("model"), "llama")


def tunesmith(*words: str) -> Any:
    return CliRunner().invoke(main, words, catch_exceptions=False)


def test_rewards_test_scores_recorded_completions(tmp_path: Path, model: Path) -> None:
    code = FUNCTIONS.replace("def length(completions, **columns):", "def length(completions):\n    print('hello')")
    path = config(tmp_path, model, "./scored.py:length", {"name": "./scored.py:some", "weight": 2}, code=code)
    rows = [{"prompt": "one", "completion": text} for text in ("a", "a", "bbb")]
    rows.append({"prompt": "two", "completion": "c"})
    tiny.write_rows(tmp_path / "recorded.jsonl", rows)
    result = tunesmith("rewards", "test", str(path), "--completions", str(tmp_path / "recorded.jsonl"), "--json")
    report = json.loads(result.stdout)
    assert [row["rewards"]["length"] for row in report["rows"]] == [1, 1, 3, 1]
    assert [row["rewards"]["some"] for row in report["rows"]] == [None, 1, 2, 3]
    assert [row["sum"] for row in report["rows"]] == [1, 3, 7, 7]
    assert (report["groups"], report["dead"], report["abstained"]) == (2, 1, {"length": 0.0, "some": 0.25})
    assert report["printed"]["length"] == "hello" and report["seconds"]["length"] < 1
    table = tunesmith("rewards", "test", str(path), "--completions", str(tmp_path / "recorded.jsonl")).stdout
    assert "abstains" in table and "1 of 2 groups are dead" in table and "length printed:\nhello" in table
    assert not (tmp_path / "out").exists()


def test_rewards_test_generates_completions(tmp_path: Path, model: Path) -> None:
    path = config(tmp_path, model, "./scored.py:length")
    report = json.loads(tunesmith("rewards", "test", str(path), "--rows", "3", "--json").stdout)
    assert report["groups"] == 3 and len(report["rows"]) == 12
    assert all(row["rewards"]["length"] == len(row["completion"]) for row in report["rows"])


def test_rewards_test_needs_a_method_with_rewards_and_completions(tmp_path: Path, model: Path) -> None:
    result = tunesmith("rewards", "test", str(tiny.sft_config(tmp_path)))
    assert result.exit_code == 2 and "scores nothing" in result.stderr
    path = config(tmp_path, model, "./scored.py:length")
    for text, code in (("", 3), ("{}", 3), ("{", 3)):
        (tmp_path / "recorded.jsonl").write_text(text)
        result = tunesmith("rewards", "test", str(path), "--completions", str(tmp_path / "recorded.jsonl"))
        assert result.exit_code == code and str(tmp_path / "recorded.jsonl") in result.stderr
    assert tunesmith("rewards", "test", str(path), "--completions", "gone.jsonl").exit_code == 3


def test_rewards_list_names_options_and_plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = """
    plugin = Plugin(offers={'rewards': {'long': ':long', 'judged': None, 'gone': ':gone'}})
    def long(completions, answer, *, scale: float = 2.0, **columns):
        '''Return the length of each completion.'''
    @hookimpl
    def score_rewards(groups): ...
    """
    distribution(tmp_path, "listed", source)
    monkeypatch.syspath_prepend(str(tmp_path))
    rows = {row["name"]: row for row in json.loads(tunesmith("rewards", "list", "--json").stdout)}
    assert rows["long"]["options"] == ["scale: float = 2.0"] and rows["long"]["columns"] == ["answer"]
    assert rows["long"]["summary"] == "Return the length of each completion." and rows["long"]["version"] == "1.2.3"
    assert "plugins: [listed]" in rows["judged"]["summary"] and "can't be imported" in rows["gone"]["summary"]
    assert "fake-listed 1.2.3" in tunesmith("rewards", "list").stdout


def test_two_rewards_with_one_label_are_an_error(tmp_path: Path, model: Path) -> None:
    (tmp_path / "other.py").write_text("def length(completions): ...\n")
    error = error_of(tiny.train, config(tmp_path, model, "./scored.py:length", "./other.py:length"))
    assert "two rewards have the label 'length'" in str(error)


OPTIONS = "def scaled(completions, *, scale: float, mode: str = 'a', flag: bool = False, **columns): ..."
WRONG_OPTIONS: dict[str, tuple[dict[str, Any], str, str]] = {
    "unknown": ({"scale": 1, "moed": "x"}, "has an unknown option: moed", "did you mean 'mode'?"),
    "far": ({"scale": 1, "zzz": "x"}, "has an unknown option: zzz", "its options: scale, mode, flag"),
    "type": ({"scale": "1"}, "has scale: '1', which is not of type float", "write scale: 0.5"),
    "bool": ({"scale": True}, "has scale: True, which is not of type float", "write scale"),
    "number": ({"scale": 1, "flag": 1}, "has flag: 1, which is not of type bool", "write flag: true"),
    "given": ({"scale": 1, "prompts": 1}, "has the option 'prompts'", "another name"),
}


@pytest.mark.parametrize("case", WRONG_OPTIONS)
def test_options_are_compared_with_the_signature(case: str) -> None:
    options, words, help = WRONG_OPTIONS[case]
    namespace: dict[str, Callable[..., Any]] = {}
    exec(OPTIONS, namespace)
    ((message, advice),) = problems(namespace["scaled"], options)
    assert words in message and help in advice
    assert not list(problems(namespace["scaled"], {"scale": 1}))
    assert missing(describe(namespace["scaled"]), (), {}) == ["scale"]
