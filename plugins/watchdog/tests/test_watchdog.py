"""Training stops after the configured number of logged steps with a high loss."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tunesmith_watchdog.watch import Watch

from tests import tiny
from tunesmith.files.record import last_record

FIRST = 1e-3  # every loss is above this


def stops_at(watch: Watch, losses: list[float]) -> int | None:
    return next((number for number, loss in enumerate(losses, 1) if watch.exhausted(loss)), None)


def test_only_consecutive_losses_above_the_threshold_count() -> None:
    assert stops_at(Watch(5.0, 3), [6, 6, 5, 6, 6, 4, 6, 6, 6, 1]) == 9
    assert stops_at(Watch(5.0, 3), [5, 5, 5, 5]) is None
    assert stops_at(Watch(5.0, 1), [1, 5.1]) == 2


def test_nan_counts_as_high() -> None:
    assert stops_at(Watch(5.0, 2), [1, float("nan"), float("nan")]) == 3


def test_the_counter_is_stored_in_checkpoints() -> None:
    first, second = Watch(5.0, 3), Watch(5.0, 3)
    assert stops_at(first, [6, 6]) is None
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert stops_at(second, [6]) == 1


def test_a_run_with_a_high_loss_stops_with_a_checkpoint_and_its_reason(tmp_path: Path) -> None:
    keys = {"loss_watchdog_threshold": FIRST, "max_steps": 8, "logging_steps": 2}
    done = tiny.train(tiny.sft_config(tmp_path, **keys))
    assert done.steps == 6  # the third logged step
    assert done.stopped is not None and "was above 0.001 in 3 logged steps in a row" in done.stopped
    assert last_record(tmp_path / "out")["stopped"] == done.stopped
    assert (tmp_path / "out" / "checkpoint-6" / "manifest.json").is_file()
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_a_resumed_run_stops_where_the_uninterrupted_one_does(tmp_path: Path) -> None:
    keys = {"loss_watchdog_threshold": FIRST, "loss_watchdog_patience": 4, "lr_scheduler": "constant"}
    config = tiny.sft_config(tmp_path, **keys, max_steps=8)
    uninterrupted = tiny.train(config, f"output_dir={tmp_path / 'whole'}")
    tiny.train(config, "max_steps=2")
    resumed = tiny.train(config, "resume_from_checkpoint=auto")
    assert uninterrupted.steps == resumed.steps == 4
    assert uninterrupted.stopped == resumed.stopped


def test_a_loss_below_the_threshold_changes_nothing(tmp_path: Path) -> None:
    config = tiny.sft_config(tmp_path, loss_watchdog_threshold=1e3, loss_watchdog_patience=1)
    assert tiny.train(config).stopped is None


@pytest.mark.slow
def test_two_processes_stop_at_the_same_step_also_after_resuming(tmp_path: Path) -> None:
    keys = {"loss_watchdog_threshold": FIRST, "loss_watchdog_patience": 2, "micro_batch_size": 1}
    configs = [
        tiny.sft_config(tmp_path, **keys, **options).rename(tmp_path / f"{number}.yaml")
        for number, options in enumerate(({"max_steps": 1}, {"resume_from_checkpoint": "auto"}))
    ]
    tiny.torchrun(2, *configs)
    record = last_record(tmp_path / "out")
    assert record["step"] == 2 and record["notes"]["resumed from"] == "checkpoint-1"
    assert (tmp_path / "out" / "checkpoint-2" / "rank-1.json").is_file()
