"""Every mistake in a sweep file is an error before any trial starts, with its place and its code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from tunesmith_sweep.space import Choice, Range, grid
from tunesmith_sweep.spec import Pruning, SweepKeys, read_spec

from tests import tiny
from tests.repo.source import ROOT
from tunesmith import ConfigError, Settings
from tunesmith.cli.main import main

HEAD = "config: run.yaml\nmethod: random\ntrials: 3\nparameters:\n"


def problems(folder: Path, text: str) -> list[tuple[str, str, str]]:
    """Return place, code and message of each problem with a sweep file."""
    path = folder / "sweep.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_spec(path)
    return [(str(p.where).removeprefix(f"{path}:"), p.code, p.message) for p in caught.value.problems]


def test_a_file_of_lists_is_every_combination_with_keys_that_vary_together(tmp_path: Path) -> None:
    path = tmp_path / "lists.yaml"
    path.write_text("a: [1, 2]\n_: [{b: 1, c: 1}, {b: 2}]\nlora.r: [8]\n")
    spec = read_spec(path)
    assert list(grid(spec.parameters)) == [
        {"a": 1, "b": 1, "c": 1, "lora.r": 8}, {"a": 1, "b": 2, "lora.r": 8},
        {"a": 2, "b": 1, "c": 1, "lora.r": 8}, {"a": 2, "b": 2, "lora.r": 8},
    ]  # fmt: skip
    assert spec.swept == ["a", "b", "c", "lora.r"]
    assert spec.place("b", 2) == f"{path}:2:23"


def test_ranges_are_read_with_their_ends(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(
        f"{HEAD}  a: {{uniform: [0, 1]}}\n  b: {{loguniform: [1e-5, 1e-3]}}\n  c: {{int: [8, 64], step: 8}}\n"
        "  d: {choice: [x, y]}\n"
    )
    a, b, c, d = read_spec(path).parameters
    assert a == Range("a", "uniform", 0.0, 1.0)
    assert b == Range("b", "loguniform", 1e-5, 1e-3)
    assert c == Range("c", "int", 8, 64, 8)
    assert isinstance(d, Choice) and d.options == ({"d": "x"}, {"d": "y"})


@pytest.mark.parametrize(
    ("line", "place", "message"),
    [
        ("a: 3", "5:6", "must have exactly one of|must be a list"),
        ("a: []", "5:6", "a has no values"),
        ("a: [1, 2, 1]", "5:13", "a: 1 is listed twice"),
        ("a: {uniform: [1, 0]}", "5:16", "the lowest value, 1, must be below the highest, 0"),
        ("a: {uniform: [1]}", "5:16", "must be two numbers"),
        ("a: {uniform: [1, true]}", "5:16", "must be two numbers"),
        ("a: {uniform: [0, .inf]}", "5:16", "must be finite"),
        ("a: {loguniform: [0, 1]}", "5:19", "must be above 0, not 0"),
        ("a: {int: [1, 2.5]}", "5:12", "must be two whole numbers"),
        ("a: {int: [1, 3], step: 5}", "5:26", "step must be a whole number from 1 to 2"),
        ("a: {uniform: [0, 1], step: 2}", "5:24", "step has no effect on uniform"),
        ("a: {uniform: [0, 1], int: [0, 1]}", "5:6", "exactly one of"),
        ("a: {unifrom: [0, 1]}", "5:7", "unknown kind of range: unifrom"),
        ("a: {choice: 3}", "5:15", "choice must be a list"),
        ("_: {b: 1}", "5:6", "must be a list of mappings"),
        ("_: [{b: 1}, {b: 1}]", "5:15", "a combination is listed twice"),
        ("output_dir: [x, y]", "5:3", "output_dir can't be varied"),
        ("resume_from_checkpoint: [auto]", "5:3", "resume_from_checkpoint can't be varied"),
    ],
)
def test_a_wrong_parameter_has_its_place(tmp_path: Path, line: str, place: str, message: str) -> None:
    ((where, code, text),) = problems(tmp_path, f"{HEAD}  {line}\n")
    assert (where, code) == (place, "sweep-file")
    assert any(part in text for part in message.split("|")), text


def test_all_problems_are_reported_together(tmp_path: Path) -> None:
    text = "method: optuna\ntrails: 3\njobs: two\nparameters:\n  a: [1, 1]\n  a.b: [2]\npruning: {frist_trials: 2}\n"
    reported = problems(tmp_path, text)
    assert [(where, code) for where, code, _ in reported] == [
        ("2:1", "unknown-key"), ("7:11", "unknown-key"), ("3:7", "wrong-type"), ("5:10", "sweep-file"),
        ("6:3", "sweep-file"),
    ]  # fmt: skip
    assert "a.b and a set the same value" in reported[-1][2]


@pytest.mark.parametrize(
    ("text", "place", "code"),
    [
        ("config: run.yaml\n", "1:1", "missing-key"),
        ("config: run.yaml\nparameters: {}\n", "2:13", "sweep-file"),
        ("method: grid\ntrials: 3\nparameters: {a: [1]}\n", "2:9", "sweep-file"),
        ("method: grid\nparameters: {a: {uniform: [0, 1]}}\n", "2:27", "sweep-file"),
        ("method: random\nparameters: {a: [1]}\n", "1:9", "sweep-file"),
        ("method: random\ntrials: 2\npruning: {}\nparameters: {a: [1]}\n", "3:10", "sweep-file"),
        ("method: bayes\nparameters: {a: [1]}\n", "1:9", "wrong-type"),
        ("trials: 0\nmethod: random\nparameters: {a: [1]}\n", "1:9", "wrong-type"),
        ("learning_rate: 3\n", "1:16", "sweep-file"),
    ],
)
def test_keys_that_do_not_go_together_are_errors(tmp_path: Path, text: str, place: str, code: str) -> None:
    assert [(where, code) for where, code, _ in problems(tmp_path, text)] == [(place, code)]


def sweep(folder: Path, text: str, *words: str) -> tuple[int, str]:
    (folder / "sweep.yaml").write_text(text)
    result = CliRunner().invoke(main, ["sweep", str(folder / "sweep.yaml"), *words])
    return result.exit_code, result.output


def test_values_of_a_sweep_are_checked_as_those_of_a_config(tmp_path: Path) -> None:
    """All trials are checked before one starts; a value is reported once, at its place in the sweep file."""
    tiny.sft_config(tmp_path)
    text = "config: run.yaml\nparameters:\n  learning_rate: [0.01, -1]\n  optimizer: [adamw_torch, os.system]\n"
    code, output = sweep(tmp_path, text, "--dry-run")
    assert code == 2
    assert "sweep.yaml:3:25: error[wrong-type]: learning_rate must be greater than 0" in output
    assert "sweep.yaml:4:28: error[unknown-value]: no plugin answers optimizer: os.system" in output
    assert output.count("error[") == 2 and output.count("(in 2 of 4 trials; the first is ") == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("metric: eval_lss", "metric is eval_lss, which is not measured"),
        ("metric: accuracy", "it is unknown whether more of it is better"),
    ],
)
def test_a_metric_that_is_not_measured_is_an_error(tmp_path: Path, keys: str, message: str) -> None:
    tiny.sft_config(tmp_path, val_set_size=0.2)
    code, output = sweep(tmp_path, f"config: run.yaml\n{keys}\nparameters: {{seed: [1, 2]}}\n", "--dry-run")
    assert code == 2 and "sweep.yaml:2:9" in output and message in output


def test_a_config_that_evaluates_nothing_is_compared_by_its_loss(tmp_path: Path) -> None:
    tiny.sft_config(tmp_path)
    code, output = sweep(tmp_path, "config: run.yaml\nparameters: {seed: [1, 2]}\n", "--dry-run")
    assert code == 0 and "trial  state    loss  seed" in output
    code, output = sweep(tmp_path, "config: run.yaml\nmetric: eval_loss\nparameters: {seed: [1, 2]}\n", "--dry-run")
    assert code == 2 and "the config evaluates nothing" in output


def test_a_key_is_set_in_one_place(tmp_path: Path) -> None:
    tiny.sft_config(tmp_path)
    code, output = sweep(tmp_path, "config: run.yaml\nparameters: {seed: [1, 2]}\n", "--dry-run", "seed=3")
    assert code == 2 and "command line (seed)" in output
    code, output = sweep(tmp_path, "seed: [1, 2]\n", "--dry-run")
    assert code == 2 and "error[missing-key]: names no config" in output


def test_the_option_of_another_tool_leads_to_the_command(tmp_path: Path) -> None:
    path = tiny.sft_config(tmp_path)
    result = CliRunner().invoke(main, ["train", str(path), "--sweep", "sweep.yaml"])
    assert result.exit_code == 2 and "tunesmith sweep SWEEP.YAML --config RUN.YAML" in result.output


PAGE = (Path(__file__).resolve().parents[3] / "docs/sweeps.md").read_text("utf-8")


@pytest.mark.parametrize("model", [SweepKeys, Pruning])
def test_the_page_lists_every_key_with_its_default(model: type[Settings]) -> None:
    start = PAGE.index("| key of `pruning` |") if model is Pruning else PAGE.index("| key | meaning |")
    table = PAGE[start:].partition("\n\n")[0]
    for name, field in model.model_fields.items():
        (row,) = re.findall(rf"^\| `{name}` \|.*$", table, re.M)
        if isinstance(field.default, int | str) and not isinstance(field.default, bool):
            assert re.search(rf"\| `?{field.default}`? \|$", row), row


def test_the_files_on_the_page_are_valid(tmp_path: Path) -> None:
    files = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.M | re.S)
    assert len(files) == 2
    for text in files:
        (tmp_path / "sweep.yaml").write_text(text)
        assert len(read_spec(tmp_path / "sweep.yaml").parameters) in (2, 5)


def test_the_files_of_the_page_are_read(tmp_path: Path) -> None:
    page = (ROOT / "docs/sweeps.md").read_text("utf-8")
    files = [
        block
        for block in re.findall(r"^```yaml\n(.*?)^```$", page, re.M | re.S)
        if re.match(r"# (lists|sweep)\.yaml", block)
    ]
    assert len(files) == 2
    for number, text in enumerate(files):
        path = tmp_path / f"{number}.yaml"
        path.write_text(text)
        assert read_spec(path).parameters
