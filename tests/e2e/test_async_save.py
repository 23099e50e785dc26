"""Checkpoints that are written while training goes on are complete or absent, and a run resumes from them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from tunesmith_engine.checkpoint import save as saving
from tunesmith_engine.checkpoint.save import is_exported, numbered
from tunesmith_engine.checkpoint.trees import Copied
from tunesmith_engine.runtime.atomic import why_invalid
from tunesmith_engine.training.loop import Loop

from tests import tiny
from tunesmith import EnvironmentProblem

STEPS = 6


def config(folder: Path, name: str, **keys: Any) -> Path:
    """Write the config of a run in folder/name with dropout in the model, which saves after each step."""
    folder.mkdir(exist_ok=True)
    if not (folder / "model-llama").exists():
        tiny.model_folder(folder / "model-llama", "llama", attention_dropout=0.1)
    values = {
        "max_steps": STEPS, "num_epochs": 20, "save_steps": 1, "save_total_limit": 2, "async_save": True,
        "resume_from_checkpoint": "auto", "lr_scheduler": "constant", "warmup_steps": 0,
        "output_dir": str(folder / name),
    }  # fmt: skip
    return tiny.sft_config(folder, **(values | keys)).rename(folder / f"{name}.yaml")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train without interruption, and without async_save, and return the folder."""
    folder = tmp_path_factory.mktemp("async")
    tiny.train(config(folder, "plain", async_save=False))
    return folder


def same(folder: Path, name: str) -> None:
    """Assert that a run ended like the one that was not interrupted."""
    tiny.assert_same_weights(folder / name, folder / "plain")
    numbers, expected = (tiny.metrics(folder / run) for run in (name, "plain"))
    assert [line["loss"] for line in numbers] == [line["loss"] for line in expected]


class Gate:
    """Hold the threads that write until a step is done, and count those that wrote while a step was taken."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, hold: int):
        self.open, self.steps_during = threading.Event(), 0
        write, step = Copied.write, Loop.step

        def held(copied: Copied, path: Path) -> list[Path]:
            if threading.current_thread() is not threading.main_thread():
                assert self.open.wait(60)
            return write(copied, path)

        def counted(loop: Loop) -> Any:
            record = step(loop)
            self.steps_during += loop.state.saving is not None
            if record.step == hold:
                self.open.set()
            return record

        monkeypatch.setattr(Copied, "write", held)
        monkeypatch.setattr(Loop, "step", counted)


def test_training_goes_on_while_a_checkpoint_is_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkpoint of step 2 is written after steps 3 and 4, and still has the state of step 2."""
    gate = Gate(monkeypatch, hold=4)
    tiny.train(config(folder, "slow", save_steps=2, max_steps=4))
    assert gate.steps_during == 2
    assert [step for step, _ in numbered(folder / "slow")] == [2, 4]
    assert [is_exported(path) for _, path in numbered(folder / "slow")] == [False, True]
    monkeypatch.undo()
    checkpoint = folder / "slow/checkpoint-2"
    weights = tiny.train(config(folder, "from-2", async_save=False), f"resume_from_checkpoint={checkpoint}")
    assert weights.steps == STEPS
    tiny.assert_same_weights(folder / "from-2", folder / "plain")


def test_error_of_the_writer_ends_the_run_at_the_next_step(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = Copied.write

    def full(copied: Copied, path: Path) -> list[Path]:
        if "checkpoint-3" in str(path):
            raise OSError(28, "No space left on device", str(path))
        return write(copied, path)

    monkeypatch.setattr(Copied, "write", full)
    with pytest.raises(EnvironmentProblem, match=r"checkpoint-3 could not be written: No space left.*\n.*checkpoint-2"):
        tiny.train(config(folder, "full"))
    assert not list((folder / "full").glob(".checkpoint-*"))
    assert tiny.metrics(folder / "full")[-1]["step"] <= 4
    monkeypatch.undo()
    tiny.train(config(folder, "full"))
    same(folder, "full")


@pytest.mark.parametrize(
    "file", ["optimizer", "manifest", *(pytest.param(name, marks=pytest.mark.slow) for name in ("trainable", "rank-0"))]
)
def test_kill_while_a_checkpoint_is_written_leaves_the_one_before(file: str, folder: Path) -> None:
    """The same command resumes the run, which ends with the same weights, bit for bit."""
    path, out = config(folder, f"killed-{file}"), folder / f"killed-{file}"
    write, seal = Copied.write, saving.seal

    def deadly(copied: Copied, target: Path) -> list[Path]:
        if target.name == file and "checkpoint-4" in str(target):
            target.with_suffix(".json").write_text("{")  # a part of a file
            os.kill(os.getpid(), signal.SIGKILL)
        return write(copied, target)

    def deadly_seal(partial: Path, final: Path, *arguments: Any, **facts: bool) -> None:
        if file == "manifest" and final.name == "checkpoint-4":
            os.kill(os.getpid(), signal.SIGKILL)
        seal(partial, final, *arguments, **facts)

    def run() -> None:
        Copied.write, saving.seal = deadly, deadly_seal  # type: ignore[method-assign]
        tiny.train(path)

    child = multiprocessing.get_context("fork").Process(target=run)
    child.start()
    child.join(120)
    assert child.exitcode == -signal.SIGKILL
    steps = [step for step, _ in numbered(out)]
    assert steps[-1] == 3 and all(why_invalid(one) is None for _, one in numbered(out))
    tiny.train(path)
    same(folder, out.name)
    assert not list(out.glob(".checkpoint-*"))
