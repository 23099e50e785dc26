"""metrics.jsonl has valid JSON, one line per logged step, also after interruptions."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import tunesmith_jsonl

from tunesmith import StepRecord


def run(folder: Path, step: int = 0, main: bool = True) -> Any:
    notes: dict[str, Any] = {}
    world = SimpleNamespace(main=main)
    return SimpleNamespace(output_dir=folder / "out", step=step, world=world, notes=notes, note=notes.__setitem__)


def record(step: int, loss: float = 1.0, **more: Any) -> StepRecord:
    return StepRecord(step, step / 10, {"loss": torch.tensor(loss), "tokens": 8}, **more)


def strict(line: str) -> Any:
    """Parse a line like parsers that do not accept NaN and Infinity."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not valid JSON")

    return json.loads(line, parse_constant=refuse)


def written(folder: Path) -> list[Any]:
    return [strict(line) for line in (folder / "out/metrics.jsonl").read_text("utf-8").splitlines()]


def test_only_logged_steps_and_evaluations_are_written_and_at_once(tmp_path: Path) -> None:
    this = run(tmp_path)
    tunesmith_jsonl.on_start(this)
    tunesmith_jsonl.on_step(this, record(1))
    assert written(tmp_path) == [{"step": 1, "epoch": 0.1, "loss": 1.0, "tokens": 8}]
    tunesmith_jsonl.on_step(this, record(2, log=False))
    tunesmith_jsonl.on_step(this, record(3, log=False, evaluation={"eval_loss": 2.0}))
    assert [line["step"] for line in written(tmp_path)] == [1, 3]
    assert written(tmp_path)[1]["eval_loss"] == 2.0


def test_numbers_that_are_not_finite_become_null(tmp_path: Path) -> None:
    this = run(tmp_path)
    tunesmith_jsonl.on_start(this)
    tunesmith_jsonl.on_step(this, record(1, float("nan"), evaluation={"eval_loss": float("-inf")}))
    assert written(tmp_path)[0]["loss"] is None and written(tmp_path)[0]["eval_loss"] is None


@pytest.mark.parametrize("torn", [b'{"step": 4, "lo', b'{"step": 4, "text": "\xc3', b"4", b""])
def test_a_resumed_run_leaves_the_file_of_an_uninterrupted_one(tmp_path: Path, torn: bytes) -> None:
    this = run(tmp_path)
    tunesmith_jsonl.on_start(this)
    for step in range(1, 6):
        tunesmith_jsonl.on_step(this, record(step))
    path = tmp_path / "out/metrics.jsonl"
    uninterrupted = path.read_bytes()
    path.write_bytes(b"".join(uninterrupted.splitlines(keepends=True)[:3]) + torn)
    resumed = run(tmp_path, step=2)
    tunesmith_jsonl.on_start(resumed)
    for step in range(3, 6):
        tunesmith_jsonl.on_step(resumed, record(step))
    assert path.read_bytes() == uninterrupted
    assert bool(resumed.notes) == bool(torn)


def test_a_new_run_starts_a_new_file(tmp_path: Path) -> None:
    for _ in range(2):
        this = run(tmp_path)
        tunesmith_jsonl.on_start(this)
        tunesmith_jsonl.on_step(this, record(1))
    assert len(written(tmp_path)) == 1


def test_only_the_main_process_writes(tmp_path: Path) -> None:
    this = run(tmp_path, main=False)
    tunesmith_jsonl.on_start(this)
    tunesmith_jsonl.on_step(this, record(1))
    assert not (tmp_path / "out").exists()


def test_a_run_killed_while_rewinding_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    this = run(tmp_path)
    tunesmith_jsonl.on_start(this)
    tunesmith_jsonl.on_step(this, record(1))
    before = (tmp_path / "out/metrics.jsonl").read_bytes()

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        tunesmith_jsonl.on_start(run(tmp_path, step=1))
    assert (tmp_path / "out/metrics.jsonl").read_bytes() == before
