"""A run without enough memory says what a step takes, and what each change of the config saves."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from tunesmith_engine.preflight import out_of_memory
from tunesmith_engine.runtime.world import Axis, World
from tunesmith_engine.training import run as training

from tests import tiny
from tunesmith import EnvironmentProblem, PluginError
from tunesmith.api import plan, prepare
from tunesmith.finding import size

PLUGIN = """
import torch
from tunesmith import Plugin, hookimpl
plugin = Plugin()
@hookimpl(wrapper=True)
def compute_loss(run):
    if run.step == 1:
        torch.empty(10**15)
    return (yield)
"""
SIZES = {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 3, "vocab_size": 4000, "head_dim": 64}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("memory")
    tiny.model_folder(folder / "model-llama", **SIZES)
    (folder / "fail.py").write_text(PLUGIN)
    return tiny.sft_config(folder, number=24, sequence_len=512, plugins=["./fail.py"], max_steps=2, num_epochs=9)


def counted(config: Path, *overrides: str) -> int:
    return int(plan(prepare(tiny.start(config, *overrides)))["memory"]["total"])


@pytest.mark.slow
def test_the_error_names_what_saves_most_with_the_numbers_of_the_plan(config: Path, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem) as caught:
        tiny.train(config, f"output_dir={tmp_path}")
    (problem,) = caught.value.problems
    total = counted(config)
    assert problem.code == "out-of-memory" and problem.help is not None
    assert "out of memory on cpu in step 2, which tried to allocate 4000000000000000 bytes" in problem.message
    assert f"a step takes about {size(total)} with" in problem.message
    for part in ("weights", "optimizer", "activations"):
        assert re.search(rf"{part} [\d.]+ [kM]B", problem.message), part
    less = counted(config, "gradient_checkpointing=true")
    assert f"gradient_checkpointing: true saves {size(total - less)} ({size(less)} remain)" in problem.help
    for text in ("micro_batch_size: 1 with gradient_accumulation_steps: 2", "adapter: lora with lora_r: 16"):
        assert f"{text} saves" in problem.help
    remaining = [float(number) for number in re.findall(r"\(([\d.]+) MB remain", problem.help)]
    assert len(remaining) > 2 and remaining == sorted(remaining), "the most first"
    assert "fsdp" not in problem.help, "one process"
    assert "out of memory" in (tmp_path / "crash.txt").read_text()


def test_short_packs_save_activations(config: Path) -> None:
    run = prepare(tiny.start(config, "micro_batch_size=1"))
    ((text, _, examples),) = out_of_memory._shorter(run)
    full, half = out_of_memory.count_step(run), out_of_memory.count_step(run, (), examples)
    assert text == "sequence_len: 256" and half["tokens"] <= 256 < full["tokens"]
    assert half["weights"] == full["weights"] and half["activations"] < 0.8 * full["activations"]


def test_several_processes_may_shard(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = prepare(tiny.start(config))
    alone = out_of_memory.count_step(run)
    monkeypatch.setattr(run.world, "size", 4)
    assert next(out_of_memory.changes(run)) == ("fsdp_config: {}", ["fsdp_config={}"])
    replicated, sharded = out_of_memory.count_step(run), out_of_memory.count_step(run, ["fsdp_config={}"])
    assert replicated["weights"] == alone["weights"] and replicated["buffers"] > 0
    assert sharded["optimizer"] == alone["optimizer"] // 4 and sharded["gathered"] < alone["weights"]
    assert sharded["total"] < replicated["total"]


def test_a_count_communicates_with_no_other_process(config: Path) -> None:
    alone = out_of_memory.count_step(prepare(tiny.start(config)))
    run = prepare(tiny.start(config, "context_parallel_size=2"))
    run.parallelism.world = World(1, 2, torch.device("cpu:0"))  # as Accelerate names it
    run.world._axes["context"] = Axis(1, 2)
    part = out_of_memory.count_step(run)  # there is no process group: a collective would raise
    assert part["activations"] == alone["activations"] // 2 and part["weights"] == alone["weights"]


def test_a_plugin_counts_what_it_distributes(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = prepare(tiny.start(config, f"plugins=[{Path(__file__).parents[1] / 'contract/plugins/zero1.py'}]"))
    monkeypatch.setattr(run.world, "size", 4)
    monkeypatch.setattr(run.parallelism, "memory", lambda module, optimizer: {"weights": 7, "optimizer": 5})
    memory = out_of_memory.count_step(run)
    assert memory["weights"] == 7 and memory["optimizer"] == 5 and memory["activations"] > 7
    assert memory["total"] == sum(n for name, n in memory.items() if name not in ("total", "tokens"))
    assert all("fsdp" not in text for text, _ in out_of_memory.changes(run))


def test_other_processes_do_not_wait_for_a_long_count(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = prepare(tiny.start(config))
    monkeypatch.setattr(out_of_memory, "WAITED_FOR", 0)
    monkeypatch.setattr(run.world, "size", 4)
    assert "a step could not be counted: TimeoutError" in str(out_of_memory.explain(run, MemoryError()))


def test_a_step_that_cant_be_counted_is_still_explained(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise ValueError("depends on content")

    monkeypatch.setattr(out_of_memory, "peak_memory", fail)
    run = prepare(tiny.start(config))
    error = out_of_memory.explain(run, MemoryError())
    assert "could not be counted: ValueError: depends on content" in str(error)
    assert "gradient_checkpointing" in str(error)


def test_other_errors_stay_as_they_are(config: Path) -> None:
    run = tiny.start(config)
    with pytest.raises(RuntimeError, match="size mismatch"), training.explained(run, lambda *_: PluginError("no")):
        raise RuntimeError("size mismatch")
    assert training.out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
