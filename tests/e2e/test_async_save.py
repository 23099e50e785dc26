"""Checkpoints that are written while training goes on are complete or absent, and a run resumes from them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tunesmith_engine.checkpoint import save as saving
from tunesmith_engine.checkpoint.save import Saving, is_exported, numbered
from tunesmith_engine.checkpoint.trees import Copied, copy_tree
from tunesmith_engine.runtime.atomic import why_invalid
from tunesmith_engine.runtime.signals import Interrupted
from tunesmith_engine.training import nonfinite
from tunesmith_engine.training.loop import Loop
from tunesmith_engine.training.state import TrainState

from tests import tiny
from tunesmith import ConfigError, EnvironmentProblem, PluginError

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


class Held(Gate):
    """Hold the threads that write until something waits for them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        super().__init__(monkeypatch, hold=-1)
        join = threading.Thread.join

        def opening(thread: threading.Thread, timeout: float | None = None) -> None:
            if thread.name == "tunesmith-checkpoint":
                self.open.set()
            join(thread, timeout)

        monkeypatch.setattr(threading.Thread, "join", opening)


def test_signal_while_a_checkpoint_is_copied_loses_no_step(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Held(monkeypatch)
    later = TrainState.save_later

    def interrupted(state: TrainState) -> None:
        later(state)
        if state.run.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(TrainState, "save_later", interrupted)
    with pytest.raises(Interrupted):
        tiny.train(config(folder, "signal"))
    assert numbered(folder / "signal")[-1][0] == 3
    monkeypatch.undo()
    tiny.train(config(folder, "signal"))
    same(folder, "signal")


@pytest.mark.parametrize("size", [1, 2])
def test_error_while_a_checkpoint_is_written_waits_for_it(
    size: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One process seals it. One of several deletes its part, because the others may not have failed."""
    Held(monkeypatch)
    step = Loop.step

    def failing(loop: Loop) -> Any:
        if loop.run.step == 2:
            loop.run.world.size = size
            raise PluginError("fails")
        return step(loop)

    monkeypatch.setattr(Loop, "step", failing)
    name = f"error-{size}"
    with pytest.raises(PluginError, match="fails"):
        tiny.train(config(folder, name, save_steps=2))
    assert not [thread for thread in threading.enumerate() if thread.name == "tunesmith-checkpoint"]
    assert [number for number, _ in numbered(folder / name)] == ([2] if size == 1 else [])
    assert not list((folder / name).glob(".checkpoint-*"))


def test_rollback_waits_for_the_checkpoint_that_is_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Held(monkeypatch)
    finite, restored = nonfinite.is_finite, []

    def bad(metrics: Any, norm: Any) -> bool:
        norm_of_step.append(norm)
        return len(norm_of_step) != 3 and finite(metrics, norm)

    norm_of_step: list[Any] = []
    monkeypatch.setattr(nonfinite, "is_finite", bad)
    monkeypatch.setattr(TrainState, "restore_weights", lambda state, path: restored.append(path.name))
    tiny.train(config(folder, "rollback", save_steps=2, max_steps=4, on_nonfinite="rollback"))
    assert restored == ["checkpoint-2"]


def test_checkpoints_without_model_and_optimizer_are_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"save_only_model does not go with async_save.*neither a model nor"):
        tiny.start(config(folder, "nothing", save_only_model=True))


class Together:
    """A stand-in for the World of one process among several, which are threads here."""

    def __init__(self, rank: int, shared: list[Any], meeting: threading.Barrier):
        self.rank, self.size, self.main = rank, len(shared), rank == 0
        self.shared, self.meeting = shared, meeting

    def gather(self, value: Any) -> list[Any]:
        self.shared[self.rank] = value
        self.meeting.wait()
        values = list(self.shared)
        self.meeting.wait()
        return values


@pytest.mark.parametrize("fault", ["begin", "write on 0", "write on 1", "json", "seal"])
def test_error_of_one_process_ends_the_save_on_all(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """None waits for another one, whichever part fails on a full disk."""
    shared, meeting, errors = [None, None], threading.Barrier(2, timeout=30), dict[int, BaseException]()
    full = OSError(28, "No space left on device")

    def fail(*arguments: Any, **facts: Any) -> None:
        raise full

    monkeypatch.setattr(saving, "tidy" if fault == "begin" else "seal", fail)

    def save(rank: int) -> None:
        world: Any = Together(rank, shared, meeting)
        run: Any = SimpleNamespace(world=world, step=1, output_dir=tmp_path)
        try:
            own = Saving(run)
            own.begin()
            copied = copy_tree(world, {"a": {1} if fault == "json" and rank == 0 else 1}, writes=True)
            if fault == f"write on {rank}":
                copied.write = fail  # type: ignore[method-assign, assignment]
            own.write(f"rank-{rank}", copied)
            own.seal()
        except Exception as error:
            errors[rank] = error

    threads = [threading.Thread(target=save, args=[rank]) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    failed = int(fault == "write on 1")
    text = "can't store what a state_dict" if fault == "json" else "checkpoint-1 could not be written: No space left"
    assert text in str(errors[failed])
    assert isinstance(errors[1 - failed], EnvironmentProblem)
    assert f"checkpoint-1 could not be written by rank {failed}" in str(errors[1 - failed])
    assert not list(tmp_path.iterdir())


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
