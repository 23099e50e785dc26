"""Runs: plan knows the state, resume is exact, processes agree, and schedule-free runs save their average."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.utils._pytree import tree_leaves
from tunesmith_optimizers.recipes import RECIPES

from tests import tiny
from tunesmith import ConfigError
from tunesmith.engine import engine

FAMILIES = (
    "sgd", "adagrad", "muon", "adafactor", "lion", "stable_adamw", "adopt_adamw", "came_pytorch", "galore_adamw",
    "adamw_bnb_8bit", "paged_adamw_32bit", "ademamix_8bit", "adamw_torch_8bit", "adamw_torch_4bit",
    "schedule_free_adamw",
)  # fmt: skip
"""One optimizer of each family."""
SHARDED = [name for name, recipe in RECIPES.items() if not recipe.unsharded and name != "lion_32bit"]


def bytes_of(state: Any) -> int:
    """Return the bytes of the tensors of a state, each storage once."""
    leaves = [leaf for leaf in tree_leaves(state) if isinstance(leaf, torch.Tensor)]
    return sum({s.data_ptr(): s.nbytes() for s in (leaf.untyped_storage() for leaf in leaves)}.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_plan_counts_the_bytes_that_a_run_has(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tunesmith.api import plan

    measured: list[int] = []
    loops = engine("training.loop").Loop
    step = loops.step

    def watched(loop: Any) -> Any:
        record = step(loop)
        measured.append(bytes_of(loop.state.optimizer.state_dict()["state"]))
        return record

    monkeypatch.setattr(loops, "step", watched)
    path = tiny.sft_config(tmp_path, number=8, max_steps=2, optimizer=name)
    planned = plan(tiny.start(path))
    tiny.train(path)
    assert planned["memory"]["optimizer"] == measured[-1]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in FAMILIES if "adamw" in name or name == "muon"])
def test_an_adapter_resumes_bit_for_bit(name: str, tmp_path: Path) -> None:
    keys = {"adapter": "lora", "lora_r": 64, "save_steps": 1, "max_steps": 3, "number": 8, "micro_batch_size": 1}
    path = tiny.sft_config(tmp_path, optimizer=name, **keys)
    tiny.train(path)
    straight = tiny.weights(tmp_path / "out")
    for step in (2, 3):
        shutil.rmtree(tmp_path / f"out/checkpoint-{step}")
    resumed = tiny.train(path, "resume_from_checkpoint=auto")
    assert resumed.policy.run.notes["resumed from"] == "checkpoint-1"
    assert all(value.equal(straight[key]) for key, value in tiny.weights(tmp_path / "out").items())


@pytest.mark.slow
def test_two_processes_train_as_one_does_replicated_and_in_shards(tmp_path: Path) -> None:
    of_torchao = ["adamw_torch_8bit"] if find_spec("torchao") else []
    names = [*SHARDED, *of_torchao, "adamw_bnb_8bit", "adafactor"]
    keys = {"max_steps": 3, "number": 16, "learning_rate": 1e-3, "weight_decay": 0.1, "save_steps": 2}
    configs = []

    def config(name: str, kind: str, **more: Any) -> Path:
        own = {"optim_args": {"momentum": 0.9}} if name == "sgd" else {}
        output = str(tmp_path / f"{name}-{kind}")
        options = {**keys, **own, "optimizer": name, "output_dir": output, **more}
        return tiny.sft_config(tmp_path, name=f"{name}-{kind}.yaml", **options)

    for name in names:
        tiny.train(config(name, "one", micro_batch_size=2))
        configs.append(config(name, "replicated", micro_batch_size=1))
        configs += [config(name, "shards", micro_batch_size=1, fsdp_config={})] if name in SHARDED else []
    tiny.torchrun(2, *configs[::2])
    tiny.torchrun(2, *configs[1::2])
    for name in names:
        one = tiny.weights(tmp_path / f"{name}-one")
        for kind in ("replicated", "shards") if name in SHARDED else ("replicated",):
            # Muon computes in bfloat16, and 8 bits round: a sum in another order can be a step apart.
            close = 5e-4 if name == "muon" or "8bit" in name else 1e-5
            for key, value in tiny.weights(tmp_path / f"{name}-{kind}").items():
                torch.testing.assert_close(value, one[key], rtol=0, atol=close, msg=f"{name} {kind} {key}")
    straight = {name: tiny.weights(tmp_path / f"{name}-shards") for name in SHARDED}
    for name in SHARDED:
        shutil.rmtree(tmp_path / f"{name}-shards/checkpoint-3")
    shards = {"micro_batch_size": 1, "fsdp_config": {}, "resume_from_checkpoint": "auto"}
    tiny.torchrun(2, *(config(name, "shards", **shards) for name in SHARDED))
    for name in SHARDED:
        for key, value in tiny.weights(tmp_path / f"{name}-shards").items():
            assert value.equal(straight[name][key]), f"{name} {key}"


# schedule-free


@pytest.fixture(scope="module")
def averaged(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Train with many evaluations and checkpoints, with none, and on from a checkpoint."""
    folder = tmp_path_factory.mktemp("averaged")
    keys: dict[str, Any] = {
        "optimizer": "schedule_free_adamw", "lr_scheduler": "constant", "max_steps": 4, "number": 16,
        "micro_batch_size": 2, "logging_steps": 1,
    }  # fmt: skip
    rows = tiny.sft_config(folder, **keys).with_name("data.jsonl")
    held = [{"path": str(rows), "type": "chat_template"}]
    more = {"test_datasets": held, "eval_steps": 1, "save_steps": 1}
    often = tiny.sft_config(folder, output_dir=str(folder / "often"), **more, **keys)
    result = tiny.train(often)
    never = tiny.sft_config(folder, name="never.yaml", output_dir=str(folder / "never"), **keys)
    tiny.train(never)
    straight = tiny.weights(folder / "often")
    for step in (3, 4):
        shutil.rmtree(folder / f"often/checkpoint-{step}")
    tiny.train(often, "resume_from_checkpoint=auto")
    return {"folder": folder, "result": result, "straight": straight, "keys": keys, "held": held}


def test_evaluations_and_checkpoints_do_not_change_training(averaged: dict[str, Any]) -> None:
    never = tiny.weights(averaged["folder"] / "never")
    assert all(value.equal(never[key]) for key, value in averaged["straight"].items())


def test_resumed_weights_are_the_same(averaged: dict[str, Any]) -> None:
    resumed = tiny.weights(averaged["folder"] / "often")
    assert all(value.equal(averaged["straight"][key]) for key, value in resumed.items())


def test_saved_weights_are_the_average_that_was_evaluated(averaged: dict[str, Any]) -> None:
    """x is saved and evaluated; y, at which gradients are computed, is in the optimizer's state."""
    folder = averaged["folder"] / "often/checkpoint-2"
    exported, trained = tiny.weights(folder), load_file(folder / "trainable.safetensors")
    named = json.loads((folder / "trainable.json").read_text())
    weights = {name.removeprefix("module."): trained[value["$tensor"]] for name, value in named.items()}
    state = json.loads((folder / "optimizer.json").read_text())["state"]
    tensors = load_file(folder / "optimizer.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    y, z = (tensors[state[f"module.{name}"][key]["$tensor"]] for key in ("y", "z"))
    torch.testing.assert_close(exported[name], y + (z - y) * (1 - 1 / 0.9), rtol=0, atol=1e-6)  # y = 0.9 x + 0.1 z
    assert exported[name].equal(weights[name]) and not exported[name].equal(y)


def test_the_last_evaluation_is_of_the_saved_model(averaged: dict[str, Any]) -> None:
    from tunesmith.api import evaluate

    keys = {**averaged["keys"], "base_model": str(averaged["folder"] / "never"), "test_datasets": averaged["held"]}
    again = evaluate(tiny.start(tiny.sft_config(averaged["folder"], name="again.yaml", output_dir="unused", **keys)))
    last = [record for record in tiny.metrics(averaged["folder"] / "often") if "eval_loss" in record][-1]
    assert again["eval_loss"] == pytest.approx(last["eval_loss"], rel=1e-6)


def test_the_best_checkpoint_is_the_average_too(averaged: dict[str, Any]) -> None:
    keys = {**averaged["keys"], "test_datasets": averaged["held"], "load_best_model_at_end": True, "learning_rate": 0.3}
    output = averaged["folder"] / "best"
    tiny.train(tiny.sft_config(averaged["folder"], name="best.yaml", output_dir=str(output), eval_steps=1, **keys))
    values = [record["eval_loss"] for record in tiny.metrics(output)]
    best = values.index(min(values)) + 1
    assert best != 4, "the test needs a last step that is not the best"
    final, kept = tiny.weights(output), tiny.weights(output / f"checkpoint-{best}")
    assert all(value.equal(kept[key]) for key, value in final.items())


def test_the_logged_rate_is_that_of_the_update(tmp_path: Path) -> None:
    keys = {"max_steps": 6, "num_epochs": 4, "logging_steps": 1, "lr_scheduler": "constant"}
    tiny.train(tiny.sft_config(tmp_path, optimizer="schedule_free_radam", **keys))
    rates = [record["learning_rate"] for record in tiny.metrics(tmp_path / "out")]
    assert rates[:4] == [0.0] * 4 and 0 < rates[4] < 1e-2  # RAdam takes no step before its variance is known


@pytest.mark.parametrize("name", ["adamw_torch_8bit", "adamw_bnb_8bit"])
def test_the_logged_rate_follows_the_schedule(name: str, tmp_path: Path) -> None:
    keys = {"max_steps": 4, "num_epochs": 4, "logging_steps": 1, "lr_scheduler": "linear", "warmup_steps": 0}
    tiny.train(tiny.sft_config(tmp_path, optimizer=name, **keys))
    rates = [record["learning_rate"] for record in tiny.metrics(tmp_path / "out")]
    assert rates == pytest.approx([1e-2, 7.5e-3, 5e-3, 2.5e-3])


def test_an_option_may_change_and_the_count_of_steps_stays(tmp_path: Path) -> None:
    keys = {"max_steps": 3, "number": 8, "save_steps": 1, "lr_scheduler": "constant", "micro_batch_size": 1}
    path = tiny.sft_config(tmp_path, optimizer="schedule_free_adamw", **keys)
    tiny.train(path)
    for step in (2, 3):
        shutil.rmtree(tmp_path / f"out/checkpoint-{step}")
    tiny.train(path, "resume_from_checkpoint=auto", "weight_decay=0.5", "accept_changes=[weight_decay]")
    groups = json.loads((tmp_path / "out/checkpoint-3/optimizer.json").read_text())["param_groups"]
    assert [(group["k"], group["weight_decay"]) for group in groups] == [(3, 0.5), (3, 0.0)]


def test_shards_are_refused_early_where_they_are_wrong(tmp_path: Path) -> None:
    for name in ("adamw_bnb_8bit", "adafactor"):
        with pytest.raises(ConfigError, match=f"{name} can't be combined with fsdp_config"):
            tiny.start(tiny.sft_config(tmp_path, optimizer=name, fsdp_config={}))
