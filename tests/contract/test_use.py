"""The output of commands fits 80 columns, reports progress, and names the next command."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import tiny
from tests.contract.bad import report_of, tunesmith
from tests.contract.fakes import BASE, DATA, fake_run, plugin_of, write
from tunesmith import hookimpl
from tunesmith.config.yamlfile import read
from tunesmith.next_command import load_command, train_command
from tunesmith.plugins.hookspecs import HOOKS


@pytest.fixture
def narrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path


def too_wide(text: str) -> list[str]:
    """Return the lines of more than 80 columns, except those that a path makes too long."""
    return [line for line in text.splitlines() if len(line) > 80 and "/" not in line.split()[-1]]


def test_plan_opens_with_the_run_and_fits_80_columns(narrow: Path) -> None:
    tiny.sft_config(narrow)
    result = tunesmith("plan", "run.yaml")
    lines = result.stdout.splitlines()
    names = [line.split()[0] for line in lines if line[:1].strip()]
    assert names[:4] == ["model", "method", "data", "steps"]
    assert names.index("memory") < names.index("disk") < names.index("time") < names.index("hooks")
    assert not too_wide(result.stdout) and "[]" not in result.stdout
    assert lines[-1] == "next: tunesmith train run.yaml"
    planned = json.loads(tunesmith("plan", "run.yaml", "--json").stdout)
    assert planned["next"] == "tunesmith train run.yaml" and planned["seconds"] is None
    assert planned["outline"]["parameters"] == planned["parameters"] and planned["disk"]["total"] > 0


def test_hooks_fits_80_columns_and_lists_every_hook_once(narrow: Path) -> None:
    write(narrow, BASE + DATA)
    text = tunesmith("hooks", "run.yaml").stdout
    heads = [line.partition(" (")[0] for line in text.splitlines() if line[:1].strip()]
    assert heads == list(HOOKS) and not too_wide(text)
    assert "build_scorer (one): the engine" in text and "evaluate (all): no plugin" in text


def test_check_names_the_next_command_and_counts_its_warnings(narrow: Path) -> None:
    write(narrow, BASE + DATA + "learning_rate: 50\n")
    result = tunesmith("check", "run.yaml", "seed=7")
    assert "no problems found, 1 warning; active plugins" in result.stdout and "warning: " in result.stderr
    assert result.stdout.splitlines()[-1] == "next: tunesmith plan run.yaml seed=7"
    assert report_of(tunesmith("check", "run.yaml", "--json"))["next"] == "tunesmith plan run.yaml"


def test_help_cuts_no_description_and_has_examples(narrow: Path) -> None:
    for words in (["--help"], ["train", "--help"]):
        text = tunesmith(*words).stdout
        assert "..." not in text.replace("[ARGS]...", "").replace("[OVERRIDES]...", "")
        assert text.count("  tunesmith ") >= 2 and max(map(len, text.splitlines())) <= 80
    assert "tunesmith completion" in tunesmith("--help").stdout


def progress_of(*calls: tuple[Any, ...], main: bool = True) -> list[tuple[Any, ...]]:
    reported: list[tuple[Any, ...]] = []

    @hookimpl
    def on_progress(phase: str, done: int | None, total: int | None) -> None:
        reported.append((phase, done, total))

    run = fake_run(Path("out"), plugin_of("heartbeat", on_progress), main=main)
    for call in calls:
        run.progress(*call)
    return reported


def test_progress_reports_the_start_and_the_end_of_a_phase_and_few_calls_between() -> None:
    calls = [("loading",), ("loading",), *(("tokenizing", n, 1000) for n in range(1001)), ("loading",)]
    reported = progress_of(*calls)
    assert reported[:2] == [("loading", None, None), ("tokenizing", 0, 1000)]
    assert reported[-2:] == [("tokenizing", 1000, 1000), ("loading", None, None)] and len(reported) < 100


def test_progress_is_reported_by_the_main_process(monkeypatch: pytest.MonkeyPatch) -> None:
    assert progress_of(("loading",), main=False) == []
    run = fake_run(Path("out"))
    run._parallelism = None
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(run.hooks, "on_progress", lambda *arguments: pytest.fail("rank 1 reports"))
    run.progress("importing torch")


def test_the_command_that_resumes_repeats_the_overrides(tmp_path: Path) -> None:
    path = write(tmp_path, "seed: 1\ndatasets:\n- path: a\n")
    overrides = [
        "learning_rate=2e-4",
        "datasets.0.path=my rows.jsonl",
        "resume_from_checkpoint=x",
        "plugins=[-console]",
    ]
    command = train_command(read(path, overrides), resume_from_checkpoint="auto")
    assert command.startswith(f"tunesmith train {path} learning_rate=0.0002 'datasets.0.path=my rows.jsonl' ")
    assert command.endswith(" resume_from_checkpoint=auto") and "resume_from_checkpoint=x" not in command
    again = read(path, [word for word in command.split()[3:] if word.startswith("learning_rate")])
    assert again.values["learning_rate"] == 2e-4


@pytest.mark.parametrize(
    ("files", "task"),
    [
        ({"config.json": '{"architectures": ["LlamaForCausalLM"]}'}, "'text-generation'"),
        ({"config.json": '{"architectures": ["LlamaForSequenceClassification"]}'}, "'text-classification'"),
        ({"config.json": "{}", "adapter_config.json": '{"task_type": "CAUSAL_LM"}'}, "'text-generation'"),
        ({"config.json": '{"architectures": ["Unknown"]}'}, None), ({"config.json": "[]"}, None), ({}, None),
    ],
)  # fmt: skip
def test_the_command_that_runs_a_model_fits_its_files(files: dict[str, str], task: str | None, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    command = load_command(tmp_path)
    assert (command is None) == (task is None) and (task is None or (command and task in command))
    strange = tmp_path / "a'); import os; ('b"
    strange.mkdir()
    (strange / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    assert load_command(strange) is None  # a name must not become code in a command that people copy


OBSERVER = """
import json
import sys
from tunesmith import Plugin, hookimpl
plugin = Plugin()
@hookimpl
def on_progress(phase, done, total):
    with open("phases.txt", "a") as file:
        file.write(f"{phase}\\t{done}\\t{total}\\t{'torch' in sys.modules}\\n")
"""


@pytest.mark.slow
def test_train_reports_its_phases_from_before_torch_is_imported(narrow: Path) -> None:
    import subprocess

    path = tiny.sft_config(narrow, plugins=["./observer.py"], max_steps=1, val_set_size=4)
    (narrow / "observer.py").write_text(OBSERVER)
    command = [sys.executable, "-m", "tunesmith", "train", str(path)]
    result = subprocess.run(command, cwd=narrow, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    rows = [line.split("\t") for line in (narrow / "phases.txt").read_text().splitlines()]
    phases = list(dict.fromkeys(row[0].partition(" ")[0] for row in rows if row[0]))
    assert rows[0] == ["importing torch", "None", "None", "False"]
    assert phases == ["importing", "loading", "reading", "tokenizing", "merging", "evaluating", "saving"]
    tokenized = [row for row in rows if row[0].startswith("tokenizing")]
    assert tokenized[-1][1] == tokenized[-1][2] != "None"  # n of n
    out = result.stdout.splitlines()
    assert [line.split()[0] for line in out[:6]] == ["model", "method", "data", "steps", "memory", "output"]
    assert out[-1].startswith("next: ")
