"""Evaluation before the first step, and checkpoints without the optimizer's state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from tunesmith_engine.runtime.signals import Interrupted

from tests import tiny
from tunesmith import ConfigError, evaluate
from tunesmith.cli import main
from tunesmith.files.record import last_record

HELD: dict[str, Any] = {"val_set_size": 8, "eval_steps": 2}


def test_an_evaluation_before_the_first_step_is_logged_as_step_0_and_changes_no_weight(tmp_path: Path) -> None:
    config = tiny.sft_config(tmp_path, **HELD)
    tiny.train(config, "eval_on_start=true", "load_best_model_at_end=true")
    tiny.train(config, f"output_dir={tmp_path / 'without'}", "load_best_model_at_end=true")
    first, *others = tiny.metrics(tmp_path / "out")
    assert first["step"] == 0 and first["eval_loss"] == pytest.approx(evaluate(str(config))["eval_loss"])
    assert [line["step"] for line in others] == [1, 2, 3, 4]
    ours, theirs = tiny.weights(tmp_path / "out"), tiny.weights(tmp_path / "without")
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_resumed_run_does_not_evaluate_again(tmp_path: Path) -> None:
    config = tiny.sft_config(tmp_path, eval_on_start=True, **HELD)
    tiny.train(config, "max_steps=2")
    tiny.train(config, "resume_from_checkpoint=auto")
    assert [line["step"] for line in tiny.metrics(tmp_path / "out")] == [0, 1, 2, 3, 4]


def test_an_evaluation_needs_held_out_data(tmp_path: Path) -> None:
    notes = tiny.start(tiny.sft_config(tmp_path, eval_on_start=True)).notes
    assert any("eval_on_start" in name and "without held-out data" in text for name, text in notes.items())


def test_a_checkpoint_of_the_model_only_is_smaller_and_is_not_resumed(tmp_path: Path) -> None:
    config = tiny.sft_config(tmp_path, save_only_model=True, load_best_model_at_end=True, **HELD)
    planned = tiny.checkpoint_bytes(tiny.start(config))
    tiny.train(config, "max_steps=2")
    folder = tmp_path / "out" / "checkpoint-2"
    assert (folder / "model.safetensors").is_file() and not (folder / "optimizer.safetensors").exists()
    assert sum(path.stat().st_size for path in folder.iterdir()) == pytest.approx(planned.checkpoint, rel=0.1)
    for choice in ("auto", str(folder)):
        with pytest.raises(ConfigError, match="has no optimizer state, because it was saved with save_only_model"):
            tiny.train(config, f"resume_from_checkpoint={choice}")
    assert evaluate(str(config), resume_from_checkpoint=str(folder))["eval_loss"] > 0


def test_plan_and_summary_say_that_checkpoints_have_no_optimizer_state(tmp_path: Path) -> None:
    config = tiny.sft_config(tmp_path, save_only_model=True)
    shown = CliRunner().invoke(main, ["plan", str(config)])
    assert "can't be resumed" in " ".join(shown.output.split())
    tiny.train(config)
    assert "can't be resumed" in last_record(tmp_path / "out")["notes"]["checkpoints"]


def test_an_interrupted_run_does_not_promise_to_resume_from_weights(tmp_path: Path) -> None:
    code = "import os, signal\nfrom tunesmith import Plugin, hookimpl\nplugin = Plugin()\n@hookimpl\n"
    code += "def on_step(record):\n    record.step == 2 and os.kill(os.getpid(), signal.SIGTERM)\n"
    (tmp_path / "kills.py").write_text(code, encoding="utf-8")
    with pytest.raises(Interrupted):
        tiny.train(tiny.sft_config(tmp_path, save_only_model=True, plugins=[str(tmp_path / "kills.py")]))
    stopped = last_record(tmp_path / "out")["stopped"]
    assert "weights only" in stopped and "resume_from_checkpoint" not in stopped
    assert (tmp_path / "out" / "checkpoint-2" / "model.safetensors").is_file()


@pytest.mark.slow
def test_two_processes_evaluate_first_and_save_the_model_only(tmp_path: Path) -> None:
    keys = {"eval_on_start": True, "save_only_model": True, "micro_batch_size": 1}
    sharded = tiny.sft_config(tmp_path, **keys, **HELD, fsdp_config={}, output_dir=str(tmp_path / "sharded"))
    sharded = sharded.rename(tmp_path / "sharded.yaml")
    config = tiny.sft_config(tmp_path, **keys, **HELD)
    tiny.torchrun(2, config, sharded)
    for folder in (tmp_path / "out", tmp_path / "sharded"):
        assert [line["step"] for line in tiny.metrics(folder)] == [0, 1, 2, 3, 4]
        assert not (folder / "checkpoint-4" / "optimizer.json").exists()
        assert (folder / "checkpoint-4" / "model.safetensors").is_file()
