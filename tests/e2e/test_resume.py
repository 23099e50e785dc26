"""Killed at any instant and started again with the same command, a run ends with the same weights, bit for bit."""

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
from tunesmith_engine.runtime.atomic import complaint

from tests import tiny
from tunesmith import ConfigError

CASES: dict[str, dict[str, Any]] = {
    "full": {"val_set_size": 4, "eval_steps": 3, "sample_packing": True},
    "lora": {"adapter": "lora", "lora_dropout": 0.2, "sample_packing": False},
    "stream": {"pretraining_dataset": [{"path": "text.jsonl", "type": "pretrain"}], "datasets": None,
               "num_epochs": None, "streaming_multipack_buffer_size": 7, "sequence_len": 64},
}  # fmt: skip


def config(folder: Path, case: str, **keys: Any) -> Path:
    """A run of 12 steps that saves after each, with dropout in the model."""
    folder.mkdir(exist_ok=True)
    model = folder / "model-llama"
    if not model.exists():
        tiny.model_folder(model, "llama", attention_dropout=0.1)
    text = tiny.write_rows(folder / "text.jsonl", tiny.rows("text", 40))
    mine = dict(CASES[case])
    if "pretraining_dataset" in mine:
        mine["pretraining_dataset"] = [{"path": str(text), "type": "pretrain"}]
    steps = {
        "max_steps": 12,
        "num_epochs": 20,
        "save_steps": 1,
        "save_total_limit": 3,
        "resume_from_checkpoint": "auto",
    }
    return tiny.sft_config(folder, "llama", **(steps | mine | keys))


def in_child(path: Path, *overrides: str) -> multiprocessing.Process:
    """Train in a forked child, which has everything imported already."""
    child = multiprocessing.get_context("fork").Process(target=tiny.train, args=(path, *overrides))
    child.start()
    return child


def same_weights(one: Path, other: Path) -> None:
    ours, theirs = tiny.weights(one), tiny.weights(other)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def losses(folder: Path) -> list[tuple[int, float]]:
    return [(line["step"], line["loss"]) for line in tiny.metrics(folder)]


@pytest.mark.parametrize(("case", "kills"), [("full", 10), ("lora", 5), ("stream", 5)])
def test_killed_at_random_instants_ends_bit_for_bit_the_same(case: str, kills: int, tmp_path: Path) -> None:
    whole = config(tmp_path / "whole", case)
    started = time.monotonic()
    child = in_child(whole)
    child.join()
    seconds = time.monotonic() - started
    assert child.exitcode == 0
    random_ = random.Random(case)
    done = inside = 0
    while done < kills:
        folder = tmp_path / "killed"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(tmp_path / "whole", folder, ignore=shutil.ignore_patterns("out"))
        path = folder / "run.yaml"
        path.write_text((tmp_path / "whole/run.yaml").read_text().replace("/whole/", "/killed/"))
        for _ in range(4):  # several times in one run; then to the end
            child = in_child(path)
            child.join(random_.uniform(0.1, 1.0) * seconds)
            if child.exitcode is None:
                os.kill(child.pid or 0, signal.SIGKILL)
                child.join()
                done += 1
            inside += bool(list((folder / "out").glob(".checkpoint-*.partial")))
        child = in_child(path)
        child.join()
        assert child.exitcode == 0
        same_weights(folder / "out", tmp_path / "whole/out")
        assert losses(folder / "out") == losses(tmp_path / "whole/out")
    assert all(complaint(path) is None for _, path in numbered(folder / "out"))
    print(f"{done} kills, {inside} inside a save")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_exits_with_its_code(number: int, tmp_path: Path) -> None:
    """The command line's way: exit code 128 + signal, a checkpoint of the step, and the rest by the same command."""
    from click.testing import CliRunner

    from tunesmith.cli import main

    tiny.train(config(tmp_path / "whole", "full"))
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
    same_weights(tmp_path / "cut/out", tmp_path / "whole/out")


def test_a_damaged_checkpoint_is_passed_over_and_said(tmp_path: Path) -> None:
    path = config(tmp_path / "whole", "full")
    tiny.train(path)
    shutil.copytree(tmp_path / "whole/out", tmp_path / "kept")
    newest = tmp_path / "whole/out/checkpoint-12/optimizer.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1] + b"\x01")
    for name in ("model.safetensors", "run.json", "metrics.jsonl"):
        (tmp_path / "whole/out" / name).unlink()
    tiny.train(path)
    record = json.loads((tmp_path / "whole/out/run.json").read_text())
    assert "checkpoint-12 optimizer.safetensors is damaged" in record["notes"]["checkpoints passed over"]
    assert record["notes"]["resumed from"] == "checkpoint-11"
    same_weights(tmp_path / "whole/out", tmp_path / "kept")


def test_a_folder_with_a_run_is_not_overwritten_and_another_config_not_resumed(tmp_path: Path) -> None:
    path = config(tmp_path / "whole", "full", max_steps=2)
    tiny.train(path)
    with pytest.raises(ConfigError, match=r"holds a run already.*\n?.*auto"):
        tiny.train(path, "resume_from_checkpoint=null")
    with pytest.raises(ConfigError, match=r"learning_rate \(0.01 -> 0.5\)"):
        tiny.train(path, "learning_rate=0.5")


def test_the_oldest_checkpoints_go_and_the_best_stays(tmp_path: Path) -> None:
    """The loss falls, so with more taken for better the first evaluation stays the best."""
    keys = {"load_best_model_at_end": True, "greater_is_better": True, "eval_steps": 1}
    tiny.train(config(tmp_path / "whole", "full", **keys))
    evaluations = {line["step"]: line["eval_loss"] for line in tiny.metrics(tmp_path / "whole/out")}
    best = max(evaluations, key=lambda step: evaluations[step])
    kept = [step for step, _ in numbered(tmp_path / "whole/out")]
    assert best < 9 and best in kept and 12 in kept and len(kept) == 3
    same_weights(tmp_path / "whole/out", tmp_path / f"whole/out/checkpoint-{best}")


def test_a_longer_run_takes_the_rate_of_the_longer_schedule(tmp_path: Path) -> None:
    """From its first step on; the checkpoint of the last step has a rate of zero."""
    path = config(tmp_path / "whole", "full", val_set_size=None, eval_steps=None)
    tiny.train(path)
    tiny.train(path, "max_steps=24")
    rates = {line["step"]: line["learning_rate"] for line in tiny.metrics(tmp_path / "whole/out")}
    longer = config(tmp_path / "long", "full", val_set_size=None, eval_steps=None, max_steps=24)
    tiny.train(longer)
    expected = {line["step"]: line["learning_rate"] for line in tiny.metrics(tmp_path / "long/out")}
    assert rates[13] == pytest.approx(expected[13]) and rates[24] == pytest.approx(expected[24])
    assert "12 to 24 steps" in json.loads((tmp_path / "whole/out/run.json").read_text())["notes"]["schedule"]


def test_a_logger_may_be_turned_on_between_a_checkpoint_and_its_resumption(tmp_path: Path) -> None:
    path = config(tmp_path / "whole", "full")
    tiny.train(path)
    assert tiny.train(path, "max_steps=13", "use_tensorboard=true").steps == 13
    assert tiny.train(path, "max_steps=14").steps == 14
