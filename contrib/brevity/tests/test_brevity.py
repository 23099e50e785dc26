"""A package of one module and one pyproject.toml adds rewards: it is installed, listed, and scores completions."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tunesmith_brevity import brevity, score_rewards

from tests import tiny
from tests.repo.source import ROOT
from tunesmith.testing.conformance import conformance

test_conformance = conformance("brevity")


@given(st.integers(0, 200), st.integers(1, 100))
def test_the_score_halves_every_so_many_words(words: int, half: int) -> None:
    short, long = brevity(["word " * words, [{"role": "assistant", "content": "word " * (words + half)}]], half=half)
    assert 0 <= long <= 1 and long == pytest.approx(short / 2)
    assert brevity([""], half=half) == [1.0]


def test_half_has_to_be_positive() -> None:
    with pytest.raises(ValueError, match="half: 0 must be at least 1"):
        brevity(["a"], half=0)


def test_the_shortest_answers_of_each_prompt_score_one() -> None:
    def group(*lengths: int) -> Any:
        return SimpleNamespace(completions=[SimpleNamespace(tokens=[1] * length) for length in lengths])

    assert score_rewards([group(3, 2, 2), group(5)]) == [[0.0, 1.0, 1.0], [1.0]]


def run_config(folder: Path, **keys: Any) -> Path:
    tiny.model_folder(folder / "model")
    tiny.write_rows(folder / "data.jsonl", tiny.rows("prompt", 8))
    values = {
        "base_model": str(folder / "model"), "rl": "grpo", "max_steps": 2, "micro_batch_size": 4,
        "trl": {"num_generations": 4, "max_completion_length": 8},
        "datasets": [{"path": str(folder / "data.jsonl"), "type": "prompt"}],
    }  # fmt: skip
    return tiny.write_config(folder, **(values | keys))


def test_both_rewards_are_logged_in_training(tmp_path: Path) -> None:
    tiny.train(run_config(tmp_path, plugins=["brevity"], rewards=[{"name": "brevity", "half": 2}, "shortest"]))
    for line in tiny.metrics(tmp_path / "out")[:2]:
        assert 0 < line["rewards/brevity/mean"] <= 1 and 0.25 <= line["rewards/shortest/mean"] <= 1
    record = json.loads((tmp_path / "out" / "run.json").read_text("utf-8"))
    assert {"brevity", "shortest"} <= {offer["name"] for offer in record["offers"]}


@pytest.mark.slow
def test_an_installed_copy_is_listed_and_used(tmp_path: Path) -> None:
    """The copy has other names, because the package itself is installed where the tests run."""
    source = tmp_path / "source"
    shutil.copytree(ROOT / "contrib" / "brevity", source, ignore=shutil.ignore_patterns("tests", "__pycache__"))
    (source / "tunesmith_brevity").rename(source / "terse_rewards")
    for file, names in {
        "pyproject.toml": {
            "tunesmith-brevity": "terse-rewards",
            "tunesmith_brevity": "terse_rewards",
            "brevity =": "terse =",
        },
        "terse_rewards/__init__.py": {'"brevity": ":brevity"': '"terse": ":brevity"', '"shortest"': '"tersest"'},
    }.items():
        text = (source / file).read_text("utf-8")
        for before, after in names.items():
            assert before in text
            text = text.replace(before, after)
        (source / file).write_text(text, encoding="utf-8")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(tmp_path / "site")}

    def run(*command: str) -> str:
        done = subprocess.run(
            [sys.executable, "-P", "-m", *command],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("tunesmith", "plugins", "--write", str(source))
    pip = ["pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target"]
    run(*pip, str(tmp_path / "site"), str(source))
    listed = run("tunesmith", "plugins")
    assert "terse-rewards 0.1.0" in listed and "offers rewards: terse, tersest" in listed
    assert "terse-rewards 0.1.0" in run("tunesmith", "rewards", "list")
    config = run_config(tmp_path, plugins=["terse"], rewards=[{"name": "terse", "half": 2}, "tersest"])
    hooks = {row["hook"]: row["calls"] for row in json.loads(run("tunesmith", "hooks", str(config), "--json"))}
    (call,) = hooks["score_rewards"]
    assert (call["plugin"], call["distribution"], call["version"]) == ("terse", "terse-rewards", "0.1.0")
    run("tunesmith", "train", str(config))
    assert tiny.metrics(tmp_path / "out")[0]["rewards/tersest/mean"] >= 0.25
