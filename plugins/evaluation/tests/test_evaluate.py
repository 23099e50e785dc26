"""The command evaluate measures a trained model, and adds the result to run.json unless a run has the folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests import tiny
from tunesmith.cli.main import main
from tunesmith.engine import engine

locked = engine("runtime.lock").locked


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(main, ["evaluate", *map(str, arguments)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with run.yaml, data.jsonl, and the output of a run with an adapter in out."""
    path = tmp_path_factory.mktemp("run")
    tiny.train(tiny.sft_config(path, val_set_size=4, adapter="lora", save_steps=2))
    return path


def recorded(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "out/run.json").read_text("utf-8")).get("evaluations", [])  # type: ignore[no-any-return]


def test_the_loss_is_that_of_training_and_is_recorded(folder: Path) -> None:
    loss = next(line["eval_loss"] for line in reversed(tiny.metrics(folder / "out")) if "eval_loss" in line)
    before, record = len(recorded(folder)), json.loads((folder / "out/run.json").read_text("utf-8"))
    outcome = run(folder / "run.yaml")
    assert outcome.exit_code == 0, outcome.output
    assert f"eval_loss │ {loss:.6g}" in outcome.stdout and "4 held-out examples" in outcome.stdout
    assert f"written: {folder / 'out/run.json'}, evaluations" in outcome.stdout
    entries = recorded(folder)
    assert len(entries) == before + 1 and entries[-1]["metrics"]["eval_loss"] == pytest.approx(loss, rel=1e-6)
    after = json.loads((folder / "out/run.json").read_text("utf-8"))
    assert {k: v for k, v in after.items() if k != "evaluations"} == {
        k: v for k, v in record.items() if k != "evaluations"
    }


def test_other_rows_are_evaluated_without_the_training_data(folder: Path) -> None:
    loss: dict[str, float] = {}
    for source in ("run.yaml", "out", "out/checkpoint-4"):
        kind = [] if source == "run.yaml" else ["--type", "chat_template"]
        outcome = run(folder / source, "--data", folder / "data.jsonl", *kind, "--json", "--no-record")
        assert outcome.exit_code == 0, outcome.output
        result = json.loads(outcome.stdout)
        assert result["held_out"] == 24 and result["written"] is None
        loss[source] = result["metrics"]["eval_loss"]
    assert loss["out"] == loss["out/checkpoint-4"] == pytest.approx(loss["run.yaml"], rel=1e-6)
    moved = tiny.write_rows(folder / "only.jsonl", tiny.rows("conversation", 3))
    missing = [f"datasets=[{{path: {folder}/missing.jsonl, type: chat_template}}]", "val_set_size=null"]
    outcome = run(folder / "run.yaml", "--data", moved, "--type", "chat_template", "--no-record", *missing)
    assert outcome.exit_code == 3 and "missing.jsonl" in outcome.stderr  # a key that the user writes is not dropped
    outcome = run(folder / "run.yaml", "--data", moved, "--no-record")
    assert outcome.exit_code == 0 and "3 held-out examples" in outcome.stdout


def test_a_folder_without_a_run_is_evaluated_and_not_recorded(folder: Path) -> None:
    outcome = run(folder / "model-llama", "--data", folder / "data.jsonl", "--type", "chat_template", "device=cpu")
    assert outcome.exit_code == 0 and "not written" in outcome.stdout
    assert not (folder / "run.json").exists() and not (folder / "model-llama-evaluation").exists()


def test_run_json_is_not_touched_while_a_run_has_the_folder(folder: Path) -> None:
    before = (folder / "out/run.json").read_bytes()
    with locked(folder / "out"):
        outcome = run(folder / "run.yaml")
    assert outcome.exit_code == 5 and "is in use by another run" in outcome.stderr and "--no-record" in outcome.stderr
    assert (folder / "out/run.json").read_bytes() == before and not (folder / "out/.lock").exists()
    with locked(folder / "out"):
        assert run(folder / "run.yaml", "--no-record").exit_code == 0
    assert (folder / "out/run.json").read_bytes() == before


def test_a_resumed_run_keeps_its_evaluations(tmp_path: Path) -> None:
    config = tiny.sft_config(tmp_path, val_set_size=4, save_steps=2)
    tiny.train(config, "max_steps=2")
    assert run(config).exit_code == 0
    tiny.train(config, "resume_from_checkpoint=auto")
    record = json.loads((tmp_path / "out/run.json").read_text("utf-8"))
    assert record["step"] == 4 and len(record["evaluations"]) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["out"], "there is nothing to evaluate"),
        (["out"], "or name the YAML of the run, to use its held-out rows"),
        (["out", "--data", "rows.jsonl"], "names no prompt strategy"),
        (["run.yaml", "--type", "alpaca"], "has no effect without --data"),
        (["run.yaml", "--tasks", "no-such.yaml"], "no-such.yaml: no such file"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(folder: Path, arguments: list[str], message: str) -> None:
    outcome = run(folder / arguments[0], *arguments[1:])
    assert outcome.exit_code == 2 and message in outcome.stderr, outcome.output
