"""The command prints its findings, exits with 3 if one is severe enough, and finds nothing in good files."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tunesmith_lint.linter import lint
from tunesmith_lint.rules import RULES

from plugins.lint.tests.planted import BAD, CHATS, LABELLED, Planted, config
from tests import tiny
from tests.repo.source import ROOT
from tunesmith import load_config, start
from tunesmith.cli import main

DATA = Path(os.environ.get("TUNESMITH_TEST_DATA", "."))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.model_folder(tmp_path_factory.mktemp("lint") / "model")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["lint", *map(str, arguments)])


@pytest.mark.parametrize(
    ("fault", "fail_on", "code"),
    [
        ("empty-answer", "error", 3), ("empty-answer", "warning", 3), ("empty-answer", "never", 0),
        ("empty-turn", "error", 0), ("empty-turn", "warning", 3), (None, "warning", 0),
    ],
)  # fmt: skip
def test_the_exit_status_is_3_if_a_finding_is_severe_enough(
    fault: str | None, fail_on: str, code: int, tmp_path: Path, model: Path
) -> None:
    path = config(tmp_path, model, BAD[fault] if fault else Planted(CHATS, []))
    done = run(path, "--fail-on", fail_on)
    assert done.exit_code == code, done.output
    assert (fault or "nothing found") in done.stdout


def test_a_finding_shows_its_severity_its_place_and_its_help(tmp_path: Path, model: Path) -> None:
    done = run(config(tmp_path, model, BAD["row"]))
    assert "datasets[0]" in done.stdout and "8 rows" not in done.stdout
    place = f"{tmp_path / 'data.jsonl'}:9"
    assert f"error   row datasets[0]: 1 of 9 rows; first: {place}\n" in done.stdout
    assert "        messages: must be a list, got str\n" in done.stdout and "        help: " in done.stdout
    assert done.stdout.endswith("1 error\n") and done.exit_code == 3


def test_json_has_the_same_findings_and_statistics(tmp_path: Path, model: Path) -> None:
    planted = Planted(LABELLED, LABELLED[:1], "chat_template", "labelled")
    done = run(config(tmp_path, model, planted), "--json", "--fail-on", "warning")
    report = json.loads(done.stdout)
    assert done.exit_code == report["exit_code"] == 3
    [finding] = report["findings"]
    assert finding.pop("help")
    assert finding == {"name": "duplicate", "severity": "warning", "entry": "datasets[0]", "count": 1, "rows": 9,
                       "first": [f"{tmp_path / 'data.jsonl'}:9"], "message": None}  # fmt: skip
    [entry] = report["entries"]
    assert entry["rows"] == 9 and entry["labels"] == {"number": 9, "good": 5} and entry["answers"]["good"] > 0
    assert entry["lengths"]["least"] <= entry["lengths"]["50"] <= entry["lengths"]["most"] < 128


def test_an_unknown_rule_is_refused_with_the_nearest_name(tmp_path: Path, model: Path) -> None:
    done = run(config(tmp_path, model, BAD["row"]), "--off", "empty-trun")
    assert (
        done.exit_code == 2
        and "unknown rule: 'empty-trun'" in done.stderr
        and "did you mean 'empty-turn'?" in done.stderr
    )


def test_the_histogram_counts_every_row_and_marks_sequence_len(tmp_path: Path, model: Path) -> None:
    path = config(tmp_path, model, BAD["answer-cut"])
    done = run(path, "sequence_len=96")
    lengths, trained = re.split("trained tokens of an example", done.stdout)[:2]
    for part in (lengths, trained):
        assert sum(int(n) for n in re.findall(r"^ +[\d,]+ [█▏]* ?(\d+) *$", part, re.M)) == 9
    assert lengths.count("sequence_len 96") == 1 and "sequence_len" not in trained.split("\n\n")[0]


def test_the_plugin_and_its_command_import_no_torch() -> None:
    import subprocess
    import sys

    code = "import sys, tunesmith_lint.command; print(sorted({'torch', 'numpy', 'rich'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# Good files


def gsm8k(folder: Path, file: str, type: str) -> Path:
    model = folder / "model"
    model.mkdir()
    for path in (DATA / "tokenizer-gpt2-chatml").iterdir():
        (model / path.name).write_bytes(path.read_bytes())
    (model / "config.json").write_text(json.dumps(tiny.config("llama", vocab_size=50259).to_dict()))
    entry: dict[str, Any] = {"path": str(DATA / "gsm8k" / file), "type": type}
    return tiny.write_config(folder, base_model=str(model), reinit_weights=True, sequence_len=1024, datasets=[entry])


@pytest.mark.skipif(not (DATA / "gsm8k").is_dir(), reason="set TUNESMITH_TEST_DATA to a folder that contains gsm8k")
@pytest.mark.parametrize(
    ("file", "type", "expected"),
    [
        ("messages.jsonl", "chat_template", []),
        ("alpaca.jsonl", "alpaca", []),
        # Two rows have an empty turn of the assistant.
        ("multiturn.jsonl", "chat_template", [("empty-turn", ["1043", "1285"])]),
    ],
)
def test_only_known_faults_are_reported_in_real_files(
    file: str, type: str, expected: list[tuple[str, list[str]]], tmp_path: Path
) -> None:
    report = lint(start(load_config(gsm8k(tmp_path, file, type))))
    assert [(fault.name, [place.rpartition(":")[2] for place in fault.first]) for fault in report.faults] == expected
    assert report.tallies[0].rows > 1000


@pytest.mark.parametrize("name", ["quickstart", "alpaca-lora", "completion", "pretrain-stream", "sft-full"])
def test_nothing_is_found_in_the_examples_of_the_repository(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    overrides = ["base_model=examples/tiny", "reinit_weights=true", "sequence_len=1024"]
    assert lint(start(load_config(f"examples/{name}.yaml", overrides))).faults == []


# Documentation


def test_the_page_lists_each_rule_with_its_severity_and_help() -> None:
    page = (ROOT / "docs" / "lint.md").read_text("utf-8")
    rows = re.findall(r"^\| `([a-z-]+)` \| (\w+) \| (.+) \|$", page, re.M)
    assert rows == [(rule.name, rule.severity, rule.help) for rule in RULES]


def test_the_page_shows_the_output_of_the_command(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    tiny.write_rows(tmp_path / "data/train.jsonl", tiny.rows("conversation", 40))
    entry = {"path": "./data/train.jsonl", "type": "chat_template"}
    tiny.write_config(tmp_path, base_model=str(model), datasets=[entry], sequence_len=88,
                      excess_length_strategy="truncate")  # fmt: skip
    page = (ROOT / "docs" / "lint.md").read_text("utf-8")
    [shown] = re.findall(r"^```text\n\$ tunesmith lint run.yaml\n(.*?)^```$", page, re.M | re.S)
    printed = run("run.yaml").stdout
    assert [line.rstrip() for line in printed.split("\n")] == shown.split("\n")
