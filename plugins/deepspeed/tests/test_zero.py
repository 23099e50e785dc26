"""ZeRO on two processes trains as one process does, is killed and resumed, and hands its checkpoints to others."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import tiny
from tunesmith.testing import worker

pytest.importorskip("deepspeed", reason="deepspeed is not installed: pip install 'tunesmith[deepspeed-library]'")

STEPS = {"num_epochs": 9, "lr_scheduler": "constant", "warmup_steps": 0, "save_steps": 4, "max_steps": 10}
LORA = {"adapter": "lora", "lora_r": 2, "lora_target_linear": True, "gradient_checkpointing": True}
ALL_DIVIDED = {"zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0}}
EVENTS = """
import os, signal
from tunesmith import Plugin, hookimpl

plugin = Plugin()
BAD, KILL = {bad}, {kill}


@hookimpl(wrapper=True)
def compute_loss(run):
    terms = yield
    if run.step == BAD:
        terms["nll"].sum = terms["nll"].sum * float("nan")
    return terms


@hookimpl
def on_step(run, policy, record):
    for name, parameter in policy.unwrapped.named_parameters():
        divided = hasattr(parameter, "ds_shape") and not parameter.ds_persist
        assert not divided or parameter.shape != parameter.ds_shape, name + " stays complete after a step"
    if run.step == KILL and run.world.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
"""


def events(folder: Path, bad: int = -1, kill: int = -1) -> dict[str, Any]:
    """Return keys for a plugin that makes a loss NaN, kills a process, and checks that no weight stays gathered."""
    path = folder / f"events-{bad}-{kill}.py"
    path.write_text(EVENTS.format(bad=bad, kill=kill), encoding="utf-8")
    return {"plugins": [str(path)]}


def write(folder: Path, name: str, processes: int = 2, **keys: Any) -> Path:
    """Write the config of a run whose step has four packs, into a folder of its own."""
    values = STEPS | {"micro_batch_size": 1, "gradient_accumulation_steps": 4 // processes}
    path = tiny.sft_config(folder, **(values | {"output_dir": str(folder / name)} | keys))
    return path.rename(folder / f"{name}-{len(list(folder.glob(f'{name}-*.yaml')))}.yaml")


def numbers(folder: Path) -> list[tuple[float, float]]:
    return [(line["loss"], line["grad_norm"]) for line in tiny.metrics(folder)]


def assert_equal(folder: Path, other: Path, tolerance: float = 1e-5) -> None:
    own, expected = numbers(folder), numbers(other)
    assert len(own) == len(expected) == 10
    for one, two in zip(own, expected, strict=True):
        assert one == two == (None, None) or one == pytest.approx(two, rel=tolerance), folder.name


def preferences(folder: Path) -> dict[str, Any]:
    path = folder / "pairs.jsonl"
    tiny.write_rows(path, tiny.rows("pair", 24))
    return {"rl": "dpo", "datasets": [{"path": str(path), "type": "chat_template"}]}


@pytest.mark.slow
def test_each_stage_trains_as_one_process_does(tmp_path: Path) -> None:
    """Processes have different rows. DPO has a copy of the model as its reference, and LoRA frozen weights."""
    kinds = {"full": {}, "lora": LORA, "dpo": preferences(tmp_path)}
    bad = events(tmp_path, bad=2) | {"on_nonfinite": "skip"}
    for name, keys in {**kinds, "skip": bad}.items():
        tiny.train(write(tmp_path, name, processes=1, **keys))
    runs = {
        "full-1": {"deepspeed": "zero1"}, "full-2": {"deepspeed": "zero2"}, "full-3": {"deepspeed": "zero3"},
        "full-2-cpu": {"deepspeed": "zero2_offload"}, "full-3-cpu": {"deepspeed": "zero3_offload"},
        "lora-1": LORA | {"deepspeed": "zero1"}, "lora-3": LORA | {"deepspeed": ALL_DIVIDED} | events(tmp_path),
        "dpo-2": kinds["dpo"] | {"deepspeed": "zero2"}, "dpo-3": kinds["dpo"] | {"deepspeed": "zero3"},
        "skip-1": bad | {"deepspeed": "zero1"}, "skip-2-cpu": bad | {"deepspeed": "zero2_offload"},
        "skip-3": bad | {"deepspeed": ALL_DIVIDED},
    }  # fmt: skip
    tiny.torchrun(2, *[write(tmp_path, name, **keys) for name, keys in runs.items()])
    for name in runs:
        assert_equal(tmp_path / name, tmp_path / name.partition("-")[0])
    for name in ("full-1", "full-3-cpu"):
        own, expected = tiny.weights(tmp_path / name), tiny.weights(tmp_path / "full")
        assert own.keys() == expected.keys()
        assert all(own[key].allclose(expected[key], atol=1e-4) for key in expected)


@pytest.mark.slow
def test_killed_run_resumes_bit_for_bit_and_elsewhere_with_the_same_loss(tmp_path: Path) -> None:
    """A run with ZeRO-3 loses a process, and resumes alike, with another stage, and without DeepSpeed."""
    resumed = {"resume_from_checkpoint": "auto"}
    precise = {"deepspeed": "zero3"} | resumed
    half = {"deepspeed": "zero2", "bf16": True} | resumed
    first = {"half": half, "half-parts": half | {"max_steps": 6}, "full": precise, "parts": precise}
    dies = precise | events(tmp_path, kill=6)
    paths = [write(tmp_path, name, **(keys if name != "parts" else dies)) for name, keys in first.items()]
    killed = subprocess.run(worker.command(2, paths), capture_output=True, text=True, check=False, timeout=240,
                            env=os.environ | {"OMP_NUM_THREADS": "1"})  # fmt: skip
    assert killed.returncode != 0 and len(numbers(tmp_path / "full")) == 10, killed.stderr[-3000:]
    assert not (tmp_path / "parts/model.safetensors").exists() and (tmp_path / "parts/checkpoint-4").is_dir()
    moved = resumed | {"accept_changes": ["plugins"]}
    staged = resumed | {"accept_changes": ["plugins", "deepspeed"], "deepspeed": "zero1"}
    for name in ("stage", "alone"):
        shutil.copytree(tmp_path / "parts/checkpoint-4", tmp_path / name / "checkpoint-4")
    again = dies | events(tmp_path)
    tiny.torchrun(
        2,
        write(tmp_path, "parts", **again, accept_changes=["plugins"]),
        write(tmp_path, "half-parts", **half),
        write(tmp_path, "stage", **staged),
    )
    tiny.train(write(tmp_path, "alone", processes=1, **moved))
    assert numbers(tmp_path / "parts") == numbers(tmp_path / "full")
    assert numbers(tmp_path / "half-parts") == numbers(tmp_path / "half")
    tiny.assert_same_weights(tmp_path / "parts", tmp_path / "full")
    tiny.assert_same_weights(tmp_path / "half-parts", tmp_path / "half")
    for name in ("stage", "alone"):
        expected = numbers(tmp_path / "full")[4:]
        assert len(expected) == 6
        for one, two in zip(numbers(tmp_path / name), expected, strict=True):
            assert one == pytest.approx(two, rel=1e-5), name


@pytest.mark.slow
def test_one_process_without_a_launcher_offloads(tmp_path: Path) -> None:
    steps = {"processes": 1, "max_steps": 2}
    path = write(tmp_path, "cpu", **steps, deepspeed="zero3_offload")
    environment = {name: value for name, value in os.environ.items() if name != "LOCAL_RANK"}
    command = [sys.executable, "-m", "tunesmith", "train", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240, env=environment)
    assert done.returncode == 0 and "Warning" not in done.stderr, done.stderr[-3000:]
    tiny.train(write(tmp_path, "plain", **steps))
    for one, two in zip(numbers(tmp_path / "cpu"), numbers(tmp_path / "plain"), strict=True):
        assert one == pytest.approx(two, rel=1e-5)
