"""Logged steps and evaluations become TensorBoard curves, also after a resume."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import tunesmith_tensorboard
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tunesmith import StepRecord


def run(folder: Path, step: int = 0, main: bool = True, **settings: Any) -> Any:
    return SimpleNamespace(
        output_dir=folder,
        step=step,
        world=SimpleNamespace(main=main),
        settings=lambda model: model(use_tensorboard=True, **settings),
    )


def train(this: Any, steps: range, loss: float) -> None:
    tunesmith_tensorboard.on_start(this)
    for step in steps:
        evaluation = {"eval_loss": 0.5} if step == 2 else None
        metrics: dict[str, Any] = {"loss": torch.tensor(loss)}
        tunesmith_tensorboard.on_step(this, StepRecord(step, 0.1, metrics, evaluation, log=step != 2))


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_logged_steps_and_evaluations_become_curves(tmp_path: Path) -> None:
    this = run(tmp_path)
    train(this, range(1, 4), 2.0)
    tunesmith_tensorboard.on_end(this)
    scalars = curves(tmp_path / "tensorboard")
    assert set(scalars) == {"train/loss", "train/epoch", "eval/loss"}
    assert scalars["train/loss"] == [(1, 2.0), (3, 2.0)] and scalars["eval/loss"] == [(2, 0.5)]


def test_a_killed_and_resumed_run_has_each_step_once(tmp_path: Path) -> None:
    train(run(tmp_path, tensorboard_dir=str(tmp_path / "board")), range(3, 8), 2.0)  # no on_end: killed
    resumed = run(tmp_path, step=4, tensorboard_dir=str(tmp_path / "board"))
    train(resumed, range(5, 8), 1.0)
    tunesmith_tensorboard.on_end(resumed)
    assert curves(tmp_path / "board")["train/loss"] == [(3, 2.0), (4, 2.0), (5, 1.0), (6, 1.0), (7, 1.0)]


def test_only_the_main_process_writes(tmp_path: Path) -> None:
    this = run(tmp_path, main=False)
    train(this, range(1, 2), 2.0)
    tunesmith_tensorboard.on_end(this)
    assert list(tmp_path.iterdir()) == []


def test_doctor_reports_if_the_package_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [f.status for f in tunesmith_tensorboard.diagnose()] == ["ok"]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # importing it raises ImportError
    [finding] = tunesmith_tensorboard.diagnose()
    assert (finding.status, finding.help) == ("problem", 'pip install "tunesmith[tensorboard]"')
