"""Logged steps and evaluations become TensorBoard curves, also after a resume."""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import tunesmith_tensorboard
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.contract.fakes import end, fake_run
from tunesmith import LogRecord, Run


def run(folder: Path, step: int = 0, main: bool = True, **settings: Any) -> Run:
    return fake_run(folder, step=step, main=main, use_tensorboard=True, **settings)


def train(this: Run, steps: range, loss: float) -> None:
    tunesmith_tensorboard.on_start(this)
    for step in steps:
        record = LogRecord(step, 0.1, {}, {"eval_loss": 0.5}) if step == 2 else LogRecord(step, 0.1, {"loss": loss})
        tunesmith_tensorboard.write_log(this, record)


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_logged_steps_and_evaluations_become_curves(tmp_path: Path) -> None:
    this = run(tmp_path)
    train(this, range(1, 4), 2.0)
    end(this)
    scalars = curves(tmp_path / "tensorboard")
    assert set(scalars) == {"train/loss", "train/epoch", "eval/loss"}
    assert scalars["train/loss"] == [(1, 2.0), (3, 2.0)] and scalars["eval/loss"] == [(2, 0.5)]


def test_histograms_and_tables_are_shown(tmp_path: Path) -> None:
    this = run(tmp_path)
    rows = [{"prompt": "1 | 2", "reward": 0.5}, {"prompt": "two\nlines", "note": "x"}]
    record = LogRecord(3, 0.1, {}, None, {"rewards": (1.0, 2.0, math.nan), "empty": ()}, {"answers": rows})
    tunesmith_tensorboard.write_log(this, record)
    end(this)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    [histogram] = events.Histograms("rewards")
    [text] = events.Tensors("answers/text_summary")
    assert (histogram.step, histogram.histogram_value.num, histogram.histogram_value.sum) == (3, 2.0, 3.0)
    shown = text.tensor_proto.string_val[0].decode().splitlines()
    assert shown[0] == "| prompt | reward | note |" and shown[2:] == ["| 1 \\| 2 | 0.5 |  |", "| two<br>lines |  | x |"]
    assert events.Tags()["histograms"] == ["rewards"]


def test_a_killed_and_resumed_run_has_each_step_once(tmp_path: Path) -> None:
    train(run(tmp_path, tensorboard_dir=str(tmp_path / "board")), range(3, 8), 2.0)  # without end: killed
    time.sleep(1.1)  # files are read in the order of their names, which begin with seconds
    resumed = run(tmp_path, step=4, tensorboard_dir=str(tmp_path / "board"))
    train(resumed, range(5, 8), 1.0)
    end(resumed)
    assert curves(tmp_path / "board")["train/loss"] == [(3, 2.0), (4, 2.0), (5, 1.0), (6, 1.0), (7, 1.0)]


def test_only_the_main_process_writes(tmp_path: Path) -> None:
    this = run(tmp_path, main=False)
    tunesmith_tensorboard.on_start(this)
    end(this)
    assert list(tmp_path.iterdir()) == []


def test_doctor_reports_if_the_package_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [f.status for f in tunesmith_tensorboard.diagnose()] == ["ok"]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # importing it raises ImportError
    [finding] = tunesmith_tensorboard.diagnose()
    assert (finding.status, finding.help) == ("problem", 'pip install "tunesmith[tensorboard]"')
