"""Checkpoints on demand, and after the first step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny
from tunesmith import ConfigError
from tunesmith.files.record import last_record

ENABLED = {"enabled": True, "check_interval": 2}


def saved(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("checkpoint-*"))


def triggered(folder: Path, name: str = "save_checkpoint") -> Path:
    (folder / "out").mkdir(exist_ok=True)
    (folder / "out" / name).touch()
    return folder / "out" / name


def test_a_trigger_file_saves_a_checkpoint_that_a_run_resumes_from(tmp_path: Path) -> None:
    config = tiny.sft_config(tmp_path, dynamic_checkpoint=ENABLED, max_steps=6)
    file = triggered(tmp_path)
    tiny.train(config)
    assert not file.exists()
    assert saved(tmp_path / "out") == ["checkpoint-2", "checkpoint-6"]
    again = f"resume_from_checkpoint={tmp_path / 'out' / 'checkpoint-2'}"
    tiny.train(config, again, f"output_dir={tmp_path / 'again'}")
    first, second = tiny.weights(tmp_path / "out"), tiny.weights(tmp_path / "again")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_file_of_another_name_in_output_dir(tmp_path: Path) -> None:
    file = triggered(tmp_path, "now")
    tiny.train(tiny.sft_config(tmp_path, dynamic_checkpoint={**ENABLED, "trigger_file_path": "now"}))
    assert saved(tmp_path / "out") == ["checkpoint-2", "checkpoint-4"] and not file.exists()


def test_without_a_trigger_file_nothing_is_saved(tmp_path: Path) -> None:
    tiny.train(tiny.sft_config(tmp_path, dynamic_checkpoint=ENABLED))
    assert saved(tmp_path / "out") == ["checkpoint-4"]
    triggered(tmp_path)
    config = tiny.sft_config(tmp_path, dynamic_checkpoint={"enabled": False}, max_steps=6)
    tiny.train(config, "resume_from_checkpoint=auto")
    assert saved(tmp_path / "out") == ["checkpoint-4", "checkpoint-6"]


def test_a_file_with_content_is_kept_and_noted(tmp_path: Path) -> None:
    file = triggered(tmp_path)
    file.write_text("keep me")
    tiny.train(tiny.sft_config(tmp_path, dynamic_checkpoint=ENABLED))
    assert file.read_text() == "keep me"
    assert saved(tmp_path / "out") == ["checkpoint-4"]
    assert "is not empty" in last_record(tmp_path / "out")["notes"]["trigger file"]


def test_the_first_step_is_saved(tmp_path: Path) -> None:
    config = tiny.sft_config(tmp_path, save_first_step=True)
    tiny.train(config)
    assert saved(tmp_path / "out") == ["checkpoint-1", "checkpoint-4"]
    tiny.train(config, "resume_from_checkpoint=auto", "max_steps=6")
    assert saved(tmp_path / "out") == ["checkpoint-1", "checkpoint-4", "checkpoint-6"]


@pytest.mark.parametrize("path", ["../file", "/etc/passwd", "checkpoint-1/file", "."])
def test_a_file_elsewhere_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(ConfigError, match="must be a file in output_dir"):
        tiny.start(tiny.sft_config(tmp_path, dynamic_checkpoint={"enabled": True, "trigger_file_path": path}))


def test_options_without_enabled_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no effect without enabled"):
        tiny.start(tiny.sft_config(tmp_path, dynamic_checkpoint={"check_interval": 5}))


@pytest.mark.slow
def test_two_processes_save_together_and_resume(tmp_path: Path) -> None:
    keys: dict[str, Any] = {"dynamic_checkpoint": ENABLED, "save_first_step": True, "micro_batch_size": 1}
    triggered(tmp_path)
    config = tiny.sft_config(tmp_path, **keys).rename(tmp_path / "first.yaml")
    again = {"resume_from_checkpoint": str(tmp_path / "out" / "checkpoint-2"), "output_dir": str(tmp_path / "again")}
    tiny.torchrun(2, config, tiny.sft_config(tmp_path, **keys, **again))
    assert saved(tmp_path / "out") == ["checkpoint-1", "checkpoint-2", "checkpoint-4"]
    assert (tmp_path / "out" / "checkpoint-2" / "rank-1.json").is_file()
    assert saved(tmp_path / "again") == ["checkpoint-4"]
    first, second = tiny.weights(tmp_path / "out"), tiny.weights(tmp_path / "again")
    assert all(torch.equal(first[name], second[name]) for name in first)
