"""A run continues on another number of processes: the same rows in each step, and the losses of one process."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from tunesmith_engine.checkpoint.save import numbered
from tunesmith_engine.runtime.atomic import why_invalid

from tests import forked, tiny

PACKS = 12  # of a step: divisible by 1, 2, 3 and 4 processes
RECORDER = """
import json, os
from tunesmith import Plugin, hookimpl

plugin = Plugin()


@hookimpl
def prepare_step(run, batches):
    rows = [batch.input_ids.flatten().tolist() for batch in batches if not batch.dummy]
    with open(run.output_dir / f"rows-{run.step + 1}-{run.world.rank}.json", "w") as file:
        json.dump([run.world.data.rank, run.world.data.size, rows], file)
"""
GRPO: dict[str, Any] = {
    "rl": "grpo", "rewards": ["./scores.py:score"],
    "trl": {"num_generations": 4, "max_completion_length": 7, "generation_batch_size": 24, "num_iterations": 3},
}  # fmt: skip
"""Rounds of six steps: the checkpoints of steps 2 and 4 are in the middle of a round."""
SCORES = "def score(completion_ids, **columns):\n    return [sum(ids) % 5 / 4 for ids in completion_ids]\n"
SHARDS: dict[str, Any] = {"fsdp_config": {"state_dict_type": "SHARDED_STATE_DICT"}}
LAYOUTS: dict[str, list[dict[str, Any]]] = {
    "fsdp": [{"fsdp_config": {}}] * 3 + [{}],
    "ddp": [{}] * 4,
    "shards": [SHARDS | {"dp_replicate_size": 2}, SHARDS, SHARDS, {}],
    "shards-ddp": [SHARDS, {}, SHARDS, {"async_save": True}],
    "mixed": [{"fsdp_config": {}}, {}, {"fsdp_config": {}}, {}],
    "lora": [{"fsdp_config": {}, "adapter": "lora"}] * 2 + [{"adapter": "lora"}] * 2,
    "grpo": [GRPO | {"fsdp_config": {}}, GRPO, GRPO | {"fsdp_config": {}}, GRPO],
}
"""The layout of each part of a run, on 4, 2, 3 and 1 processes."""
PROCESSES = (4, 2, 3, 1)
ONE: dict[str, dict[str, Any]] = {"one": {}, "one-lora": {"adapter": "lora"}, "one-grpo": GRPO}
STEPS = 2  # of each part


def write(folder: Path, name: str, processes: int, steps: int, **keys: Any) -> Path:
    """Write the config of a part of a run, in folder/name, that ends after `steps`."""
    values = {
        "micro_batch_size": 1, "gradient_accumulation_steps": PACKS // processes, "max_steps": steps,
        "num_epochs": 99, "save_steps": STEPS, "lr_scheduler": "constant", "warmup_steps": 0, "sequence_len": 64,
        "learning_rate": 1e-3, "resume_from_checkpoint": "auto", "output_dir": str(folder / name),
        "plugins": ["./rows.py"],
    }  # fmt: skip
    (folder / "rows.py").write_text(RECORDER)
    (folder / "scores.py").write_text(SCORES)
    if "rl" in keys:
        prompts = tiny.write_rows(folder / "prompts.jsonl", tiny.rows("prompt", 20))
        values["datasets"] = [{"path": str(prompts), "type": "prompt"}]
    path = tiny.sft_config(folder, number=90, **(values | keys))
    return path.rename(folder / f"{name}-{processes}.yaml")


def rows(folder: Path) -> list[list[Any]]:
    """Return the rows of each step in their order over all processes."""
    steps = []
    for step in range(1, len(PROCESSES) * STEPS + 1):
        ranks: dict[int, Any] = {}
        for path in folder.glob(f"rows-{step}-*.json"):
            rank, size, own = json.loads(path.read_text())
            ranks[rank] = (size, own)
        size = ranks[0][0]
        assert len(ranks) == size
        total = sum(len(own) for _, own in ranks.values())  # dead groups of GRPO are left out
        steps.append([ranks[i % size][1][i // size] for i in range(total)])
    return steps


def losses(folder: Path) -> list[tuple[float, float]]:
    return [(line["loss"], line["grad_norm"]) for line in tiny.metrics(folder)]


@pytest.mark.slow
def test_run_continues_on_4_then_2_then_3_processes_then_1(tmp_path: Path) -> None:
    """Each part is another launch. A step has as many packs as before, so no change has to be accepted."""
    forked.train(1, tmp_path, *(write(tmp_path, name, 1, STEPS * 4, **keys) for name, keys in ONE.items()))
    for number, processes in enumerate(PROCESSES):
        paths = [
            write(tmp_path, name, processes, STEPS * (number + 1), **layouts[number])
            for name, layouts in LAYOUTS.items()
        ]
        forked.train(processes, tmp_path / f"out-{processes}", *paths)
    for name in LAYOUTS:
        one = tmp_path / (f"one-{name}" if f"one-{name}" in ONE else "one")
        assert rows(tmp_path / name) == rows(one), name
        for numbers, expected in zip(losses(tmp_path / name), losses(one), strict=True):
            assert numbers == pytest.approx(expected, rel=1e-5, abs=1e-6), name


# killed processes

KILLED: dict[str, dict[str, Any]] = {
    "ddp": {"adapter": "lora", "lora_dropout": 0.1},
    "fsdp": {"fsdp_config": {}},
}


def killable(folder: Path, name: str, **keys: Any) -> Path:
    """Write the config of a run of ten steps that saves after each of them."""
    folder.mkdir(exist_ok=True)
    if not (folder / "model-llama").exists():
        tiny.model_folder(folder / "model-llama", "llama", attention_dropout=0.1)
    values = {
        "max_steps": 10, "num_epochs": 99, "save_steps": 1, "save_total_limit": 3, "resume_from_checkpoint": "auto",
        "micro_batch_size": 1, "output_dir": str(folder / name),
    }  # fmt: skip
    return tiny.sft_config(folder, **(values | keys)).rename(folder / f"{name}.yaml")


def kill(group: forked.Group, rank: int, out: Path) -> None:
    """Kill a process, and assert that the other one ends by itself.

    A process that waits for one that it never met is ended by a launcher, which a fork does not have.
    """
    met = sum(path.stat().st_mtime > group.started for path in out.glob(".rank-*")) == 2
    os.kill(group.processes[rank].pid or 0, signal.SIGKILL)
    survivor = group.processes[1 - rank]
    if met:
        survivor.join(60)
    code = survivor.exitcode
    group.kill()
    assert not met or code in (0, 1, 8), f"{code}\n{group.output()}"


@pytest.mark.slow
@pytest.mark.parametrize("case", KILLED)
def test_two_processes_killed_at_random_instants_resume_bit_for_bit(case: str, tmp_path: Path) -> None:
    """Six kills of either process for each layout. The same command continues the run."""
    forked.train(2, tmp_path / "first", killable(tmp_path, "uninterrupted", **KILLED[case]))
    path = killable(tmp_path, "killed", **KILLED[case])
    out, instants = tmp_path / "killed", random.Random(case)
    started = time.monotonic()
    forked.train(2, tmp_path / "timed", path)
    seconds = time.monotonic() - started
    kills = 0
    while kills < 6:
        shutil.rmtree(out)
        for _ in range(3):
            group = forked.Group(2, lambda: forked.in_turn([path]), tmp_path / "output")
            victim = instants.randrange(2)
            group.processes[victim].join(instants.uniform(0.2, 1.0) * seconds)
            if group.processes[victim].exitcode is None:
                kill(group, victim, out)
                kills += 1
            assert all(why_invalid(folder) is None for _, folder in numbered(out))
        forked.train(2, tmp_path / "last", path)
        assert tiny.metrics(out)[-1]["step"] == 10
        assert losses(out) == losses(tmp_path / "uninterrupted")
        tiny.assert_same_weights(out, tmp_path / "uninterrupted")
