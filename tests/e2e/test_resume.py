"""A run that is killed at any time and restarted with the same command ends with the same weights, bit for bit."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from tunesmith_engine.checkpoint.save import numbered
from tunesmith_engine.runtime.atomic import why_invalid

from tests import tiny
from tunesmith import ConfigError

CASES: dict[str, dict[str, Any]] = {
    "full": {"val_set_size": 4, "eval_steps": 3, "sample_packing": True},
    "lora": {"adapter": "lora", "lora_dropout": 0.2, "sample_packing": False},
    "stream": {"pretraining_dataset": [{"path": "text.jsonl", "type": "pretrain"}], "datasets": None,
               "num_epochs": None, "streaming_multipack_buffer_size": 7, "sequence_len": 64},
}  # fmt: skip


def config(folder: Path, case: str, **keys: Any) -> Path:
    """Write the config of a run of 12 steps with dropout in the model, which saves after each step."""
    folder.mkdir(exist_ok=True)
    model = folder / "model-llama"
    if not model.exists():
        tiny.model_folder(model, "llama", attention_dropout=0.1)
    text = tiny.write_rows(folder / "text.jsonl", tiny.rows("text", 40))
    case_keys = dict(CASES[case])
    if "pretraining_dataset" in case_keys:
        case_keys["pretraining_dataset"] = [{"path": str(text), "type": "pretrain"}]
    steps = {
        "max_steps": 12,
        "num_epochs": 20,
        "save_steps": 1,
        "save_total_limit": 3,
        "resume_from_checkpoint": "auto",
    }
    return tiny.sft_config(folder, "llama", **(steps | case_keys | keys))


def in_child(path: Path, *overrides: str) -> multiprocessing.Process:
    """Train in a forked child, which needs no imports of its own."""
    child = multiprocessing.get_context("fork").Process(target=tiny.train, args=(path, *overrides))
    child.start()
    return child


def same_weights(folder: Path, reference: Path) -> None:
    """Check that the weights in two folders are equal bit for bit."""
    weights, expected = tiny.weights(folder), tiny.weights(reference)
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in weights)


def losses(folder: Path) -> list[tuple[int, float]]:
    return [(line["step"], line["loss"]) for line in tiny.metrics(folder)]


@pytest.mark.slow
@pytest.mark.parametrize(("case", "kills"), [("full", 10), ("lora", 5), ("stream", 5)])
def test_run_killed_at_random_times_equals_uninterrupted(case: str, kills: int, tmp_path: Path) -> None:
    reference = config(tmp_path / "uninterrupted", case)
    started = time.monotonic()
    child = in_child(reference)
    child.join()
    seconds = time.monotonic() - started
    assert child.exitcode == 0
    random_ = random.Random(case)
    kill_count = inside = 0
    while kill_count < kills:
        folder = tmp_path / "killed"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(tmp_path / "uninterrupted", folder, ignore=shutil.ignore_patterns("out"))
        path = folder / "run.yaml"
        path.write_text((tmp_path / "uninterrupted/run.yaml").read_text().replace("/uninterrupted/", "/killed/"))
        for _ in range(4):  # kill the run up to four times, then let it finish
            child = in_child(path)
            child.join(random_.uniform(0.1, 1.0) * seconds)
            if child.exitcode is None:
                os.kill(child.pid or 0, signal.SIGKILL)
                child.join()
                kill_count += 1
            inside += bool(list((folder / "out").glob(".checkpoint-*.partial")))
        child = in_child(path)
        child.join()
        assert child.exitcode == 0
        same_weights(folder / "out", tmp_path / "uninterrupted/out")
        assert losses(folder / "out") == losses(tmp_path / "uninterrupted/out")
    assert all(why_invalid(path) is None for _, path in numbered(folder / "out"))
    print(f"{kill_count} kills, {inside} inside a save")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_saves_and_exits_with_its_code(number: int, tmp_path: Path) -> None:
    """The command ends with exit code 128 + signal and a checkpoint of the step. The same command resumes the run."""
    from click.testing import CliRunner

    from tunesmith.cli import main

    tiny.train(config(tmp_path / "uninterrupted", "full"))
    path = config(tmp_path / "cut", "full", max_steps=12, save_steps=100, logging_steps=1)
    plugin = tmp_path / "cut/signals.py"
    plugin.write_text(
        "import os, signal\nfrom tunesmith import Plugin, hookimpl\nplugin = Plugin()\n"
        f"@hookimpl\ndef on_step(record):\n    if record.step == 5: os.kill(os.getpid(), {int(number)})\n"
    )
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    try:
        result = CliRunner().invoke(main, ["train", str(path), "plugins=[./signals.py]"])
        assert result.exit_code == 128 + number, result.output
        assert [step for step, _ in numbered(tmp_path / "cut/out")] == [5]
        assert json.loads((tmp_path / "cut/out/run.json").read_text())["status"] == "interrupted"
        plugin.write_text("from tunesmith import Plugin\nplugin = Plugin()\n")
        again = ["train", str(path), "plugins=[./signals.py]", "save_steps=1", "accept_changes=[plugins]"]
        result = CliRunner().invoke(main, again)
        assert result.exit_code == 0, result.output
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGINT, before[1])
    same_weights(tmp_path / "cut/out", tmp_path / "uninterrupted/out")


def test_damaged_checkpoint_is_skipped_and_reported(tmp_path: Path) -> None:
    path = config(tmp_path / "uninterrupted", "full")
    tiny.train(path)
    shutil.copytree(tmp_path / "uninterrupted/out", tmp_path / "kept")
    newest = tmp_path / "uninterrupted/out/checkpoint-12/optimizer.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1] + b"\x01")
    for name in ("model.safetensors", "run.json", "metrics.jsonl"):
        (tmp_path / "uninterrupted/out" / name).unlink()
    tiny.train(path)
    record = json.loads((tmp_path / "uninterrupted/out/run.json").read_text())
    assert "checkpoint-12 optimizer.safetensors is damaged" in record["notes"]["checkpoints passed over"]
    assert record["notes"]["resumed from"] == "checkpoint-11"
    same_weights(tmp_path / "uninterrupted/out", tmp_path / "kept")


def test_existing_run_is_not_overwritten_or_resumed_with_another_config(tmp_path: Path) -> None:
    path = config(tmp_path / "uninterrupted", "full", max_steps=2)
    tiny.train(path)
    with pytest.raises(ConfigError, match=r"already contains a run.*\n?.*auto"):
        tiny.train(path, "resume_from_checkpoint=null")
    with pytest.raises(ConfigError, match=r"learning_rate \(0.01 -> 0.5\)"):
        tiny.train(path, "learning_rate=0.5")


def test_oldest_checkpoints_are_deleted_but_not_the_best(tmp_path: Path) -> None:
    """The loss falls, so with greater_is_better the first evaluation is the best."""
    keys = {"load_best_model_at_end": True, "greater_is_better": True, "eval_steps": 1}
    tiny.train(config(tmp_path / "uninterrupted", "full", **keys))
    evaluations = {line["step"]: line["eval_loss"] for line in tiny.metrics(tmp_path / "uninterrupted/out")}
    best = max(evaluations, key=lambda step: evaluations[step])
    kept = [step for step, _ in numbered(tmp_path / "uninterrupted/out")]
    assert best < 9 and best in kept and 12 in kept and len(kept) == 3
    same_weights(tmp_path / "uninterrupted/out", tmp_path / f"uninterrupted/out/checkpoint-{best}")


def test_resume_with_more_steps_uses_the_longer_schedule(tmp_path: Path) -> None:
    """The new schedule applies from the first resumed step, although the rate in the checkpoint is zero."""
    path = config(tmp_path / "uninterrupted", "full", val_set_size=None, eval_steps=None)
    tiny.train(path)
    tiny.train(path, "max_steps=24")
    rates = {line["step"]: line["learning_rate"] for line in tiny.metrics(tmp_path / "uninterrupted/out")}
    longer = config(tmp_path / "long", "full", val_set_size=None, eval_steps=None, max_steps=24)
    tiny.train(longer)
    expected = {line["step"]: line["learning_rate"] for line in tiny.metrics(tmp_path / "long/out")}
    assert rates[13] == pytest.approx(expected[13]) and rates[24] == pytest.approx(expected[24])
    assert "12 to 24 steps" in json.loads((tmp_path / "uninterrupted/out/run.json").read_text())["notes"]["schedule"]


def test_logger_may_be_enabled_or_disabled_on_resume(tmp_path: Path) -> None:
    path = config(tmp_path / "uninterrupted", "full")
    tiny.train(path)
    assert tiny.train(path, "max_steps=13", "use_tensorboard=true").steps == 13
    assert tiny.train(path, "max_steps=14").steps == 14
