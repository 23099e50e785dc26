"""Runs are listed from their files alone: state, steps, results, cost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tunesmith_runs.folders import read_run, run_folders

from tunesmith.cli.main import main
from tunesmith.engine import engine

Writer = Callable[..., Path]


@pytest.fixture
def written(tmp_path: Path) -> Writer:
    """Return a function that writes the files of a run."""

    def write(name: str, status: str = "done", losses: tuple[float, ...] = (3.0, 2.0, 2.5), **keys: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        lines = [{"step": n, "loss": v, "eval_loss": v, "tokens": 100 * n} for n, v in enumerate(losses, 1)]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 9')
        config = {"metric_for_best_model": "eval_loss", "learning_rate": 1e-4, "rl": None, "lora": {"r": 8}} | keys
        outline = {"method": "sft", "model": "models/small"}
        record = {"status": status, "step": len(losses), "total_steps": 4, "seconds": 61.0, "started": time.time() - 90}
        (folder / "run.json").write_text(json.dumps(record | {"config": config, "outline": outline}))
        return folder

    return write


def lock(folder: Path, pid: int) -> None:
    process = engine("runtime.process")
    this = asdict(process.Process.this())
    started = process._status(pid)[1]
    (folder / ".lock").write_text(json.dumps(this | {"pid": pid, "started": started}))


def listed(folder: Path, *words: str) -> list[dict[str, Any]]:
    result = CliRunner().invoke(main, ["runs", str(folder), "--json", *words])
    assert result.exit_code == 0, result.output
    return json.loads(result.output)  # type: ignore[no-any-return]


def test_a_run_is_running_while_its_process_is_alive(written: Writer) -> None:
    folder = written("a", "running")
    assert read_run(folder).state == "interrupted"  # killed: nothing has the lock
    lock(folder, os.getpid())
    run = read_run(folder)
    assert run.state == "running" and 85 < (run.seconds or 0) < 100
    ended = subprocess.Popen([sys.executable, "-c", ""])
    lock(folder, ended.pid)
    ended.wait()
    assert read_run(folder).state == "interrupted"


@pytest.mark.parametrize(
    ("status", "state"), [("done", "finished"), ("failed", "failed"), ("interrupted", "interrupted")]
)
def test_states_are_those_of_the_record(written: Writer, status: str, state: str) -> None:
    assert read_run(written("a", status)).state == state


def test_facts_are_those_of_the_files(written: Writer) -> None:
    folder = written("a")
    (facts,) = listed(folder)
    expected = {"state": "finished", "step": 3, "total_steps": 4, "method": "sft", "loss": 2.5, "best": 2.0,
                "best_step": 2, "seconds": 61.0, "tokens": 300}  # fmt: skip
    assert {key: facts[key] for key in expected} == expected
    assert facts["disk"] == sum(path.stat().st_size for path in folder.iterdir())


def test_more_can_be_better(written: Writer) -> None:
    assert read_run(written("a", greater_is_better=True)).best == ("eval_loss", 1, 3.0)


def test_folders_below_are_searched_and_checkpoints_are_not(written: Writer, tmp_path: Path) -> None:
    for name in ("b", "sweep/0001", "b/checkpoint-3", "b/.hidden"):
        written(name)
    assert [str(path.relative_to(tmp_path)) for path in run_folders(tmp_path)] == ["b", "sweep/0001"]


def test_runs_are_sorted_and_filtered(written: Writer, tmp_path: Path) -> None:
    written("a", losses=(1.0,), rl="dpo")
    written("b", "failed", losses=(0.5,), learning_rate=2e-4)
    written("c", losses=(), lora={"r": 16})

    def names(*words: str) -> list[str]:
        return [Path(facts["run"]).name for facts in listed(tmp_path, *words)]

    assert names("--sort", "loss") == ["b", "a", "c"]
    assert names("--state", "finished") == ["a", "c"]
    assert names("--where", "rl=dpo") == ["a"]
    assert names("--where", "learning_rate=2e-4") == ["b"]
    assert names("--where", "lora.r=16") == ["c"]
    assert names("--where", "lora.x=16") == []


def test_damaged_files_are_shown_and_hide_no_other_run(written: Writer, tmp_path: Path) -> None:
    written("a")
    folder = written("b")
    (folder / "run.json").write_text("{")
    (folder / "metrics.jsonl").write_bytes(b"\xff\n[]\n")
    result = CliRunner().invoke(main, ["runs", str(tmp_path)])
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert lines[0].split()[:4] == ["run", "state", "step", "method"]
    assert lines[1].split()[:3] == ["a", "finished", "3/4"]
    assert lines[2].split()[:3] == ["b", "interrupted", "0/?"]


def test_a_wrong_folder_and_a_wrong_filter_are_errors(tmp_path: Path) -> None:
    for words in ([str(tmp_path / "none")], [str(tmp_path), "--where", "rl"]):
        assert CliRunner().invoke(main, ["runs", *words]).exit_code == 2
