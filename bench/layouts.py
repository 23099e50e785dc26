"""Train the same steps on every layout of processes, and compare loss and gradient norm with those of one process.

    python bench/run.py layouts

Each process has different data. Every layout is combined with every method, and the models rotate, so that each pair of
a layout, a method and a model is there at least once. Runs of a layout share one launch.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import cycle
from pathlib import Path
from typing import Any

import yaml

from bench import pairs
from tests import tiny
from tunesmith.testing import worker, write_rows

STEPS, PACKS = 10, 4
"""Optimizer steps, and packs in each of them over all processes."""
BOUND = 1e-5
"""The largest relative difference of a loss or a gradient norm that is called equal, in float32."""


@dataclass(frozen=True)
class Layout:
    """A layout of processes: its keys in the YAML, and the package it needs.

    groups: the number of processes, or groups of them, that have packs of their own.
    """

    processes: int
    groups: int
    keys: dict[str, Any] = field(default_factory=dict)
    package: str = "torch"
    models: tuple[str, ...] = ("llama", "qwen3", "qwen3_moe", "gemma3")


LAYOUTS = {
    "DDP 2": Layout(2, 2),
    "FSDP2 2": Layout(2, 2, {"fsdp_config": {}}),
    "HSDP 2x2": Layout(4, 4, {"fsdp_config": {}, "dp_replicate_size": 2}),
    "CP 2": Layout(2, 1, {"context_parallel_size": 2}),
    "DDP 2 x CP 2": Layout(4, 2, {"context_parallel_size": 2}),
    "FSDP2 2 x CP 2": Layout(4, 2, {"context_parallel_size": 2, "fsdp_config": {}}),
    "TP 2": Layout(2, 1, {"tensor_parallel_size": 2}),
    "FSDP2 2 x TP 2": Layout(4, 2, {"tensor_parallel_size": 2, "fsdp_config": {}}),
    "EP 2": Layout(2, 2, {"expert_parallel_size": 2}, models=("qwen3_moe", "mixtral")),
    "DeepSpeed 1, 2": Layout(2, 2, {"deepspeed": "zero1"}, package="deepspeed"),
    "DeepSpeed 2, 2": Layout(2, 2, {"deepspeed": "zero2"}, package="deepspeed"),
    "DeepSpeed 3, 2": Layout(2, 2, {"deepspeed": "zero3"}, package="deepspeed"),
}
LORA = {"adapter": "lora", "lora_r": 4, "lora_target_modules": ["q_proj", "v_proj"]}
PREFERENCE = {"learning_rate": 1e-3}
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "SFT": ("conversation", {}),
    "SFT LoRA": ("conversation", LORA),
    "DPO": ("pair", {"rl": "dpo"} | PREFERENCE),
    "KTO": ("labelled", {"rl": "kto"} | PREFERENCE),
    "GRPO LoRA": (
        "prompt",
        {
            "rl": "grpo", **LORA, "rewards": [{"name": "length", "maximum": 6}],
            "trl": {"num_generations": 4, "max_completion_length": 8}, "micro_batch_size": 8,
        },
    ),
}  # fmt: skip


def write(folder: Path, method: str, model: str, layout: str, keys: dict[str, Any], groups: int) -> Path:
    """Write the config of a run into a folder of its own, with model and data if they are not there yet."""
    kind, own = METHODS[method]
    strategy = "prompt" if kind == "prompt" else "chat_template"
    data = folder / f"{kind}.jsonl"
    if not data.exists():
        write_rows(data, tiny.rows(kind, 240))
    base = folder / model
    values = {
        "base_model": str(base if base.exists() else tiny.model_folder(base, model)),
        "datasets": [{"path": str(data), "type": strategy}],
        "max_steps": STEPS, "num_epochs": 9, "sequence_len": 96, "learning_rate": 1e-2, "device": "cpu",
        "micro_batch_size": 1, "lr_scheduler": "constant", "warmup_steps": 0, "save_steps": 1000,
        "output_dir": str(folder / "runs" / f"{method}-{model}-{layout}".replace(" ", "_")),
    }  # fmt: skip
    values |= own | keys | {"gradient_accumulation_steps": PACKS // groups}
    path = folder / f"{method}-{model}-{layout}.yaml".replace(" ", "_")
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def selection() -> Iterator[tuple[str, str, str]]:
    """Yield layout, method and model of each run: every layout with every method, and models in rotation."""
    for number, (name, layout) in enumerate(LAYOUTS.items()):
        if find_spec(layout.package) is None:
            print(f"  {name}: left out, because {layout.package} is not installed")
            continue
        models = cycle(layout.models[number % len(layout.models) :] + layout.models[: number % len(layout.models)])
        yield from ((name, method, next(models)) for method in METHODS)


def launch(processes: int, configs: list[Path]) -> str:
    """Train configs in one launch. Return what went wrong, or an empty string."""
    command = worker.command(processes, configs) if processes > 1 else [
        sys.executable, "-m", worker.__name__, *map(str, configs)
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode == 0:
        return ""
    errors = [line for line in done.stderr.splitlines() if "error" in line.lower()]
    return (errors or done.stderr.splitlines()[-1:] or ["?"])[0][:300]


def curve(config: Path) -> list[tuple[float, float]]:
    """Return loss and gradient norm of each step of a finished run, or an empty list."""
    path = Path(yaml.safe_load(config.read_text("utf-8"))["output_dir"]) / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []
    return [(line["loss"], line["grad_norm"]) for line in lines if "loss" in line]


def largest(curves: list[tuple[float, float]], expected: list[tuple[float, float]]) -> tuple[float, float]:
    """Return the largest relative difference of losses and of gradient norms; NaN if steps are missing."""
    if len(curves) != len(expected) or not expected:
        return math.nan, math.nan
    differences = [
        tuple(abs(a - b) / max(abs(b), 1e-3) for a, b in zip(one, other, strict=True))
        for one, other in zip(curves, expected, strict=True)
    ]
    return max(d[0] for d in differences), max(d[1] for d in differences)


def main() -> None:
    runs = list(selection())
    if pairs.quick:
        runs = runs[::4]
    print(f"layouts: {len(runs)} runs of {STEPS} steps; largest relative difference of loss and gradient norm")
    with tempfile.TemporaryDirectory(prefix="tunesmith-layouts-") as name:
        folder = Path(name)
        combinations = dict.fromkeys((method, model) for _, method, model in runs)
        one = {both: write(folder, *both, "one", {}, 1) for both in combinations}
        if problem := launch(1, list(one.values())):
            raise SystemExit(f"one process: {problem}")
        failed = []
        print(f"| {'layout':<16} | {'method':<10} | {'model':<10} | loss    | norm    |")
        for layout in dict.fromkeys(layout for layout, _, _ in runs):
            chosen = LAYOUTS[layout]
            configs = {
                (method, model): write(folder, method, model, layout, chosen.keys, chosen.groups)
                for other, method, model in runs if other == layout
            }  # fmt: skip
            problem = launch(chosen.processes, list(configs.values()))
            for both, config in configs.items():
                loss, norm = largest(curve(config), curve(one[both]))
                verdict = "" if max(loss, norm) <= BOUND else " not run" if math.isnan(loss) else f" above {BOUND:.0e}"
                failed += [layout] if verdict else []
                names = f"| {layout:<16} | {both[0]:<10} | {both[1]:<10} |"
                print(f"{names} {loss:.1e} | {norm:.1e} |{verdict}", flush=True)
            if problem:
                print(f"  {layout}: {problem}")
        if failed:
            raise SystemExit(f"not equal, or not run: {', '.join(dict.fromkeys(failed))}")
