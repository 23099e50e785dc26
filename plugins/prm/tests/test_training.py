"""From YAML to a process reward model: what does not change it, how it resumes, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import tunesmith_prm

from plugins.prm.tests.made import NUMBER, config
from tests import tiny
from tunesmith import ConfigError, build_policy, collate
from tunesmith.api import prepare
from tunesmith.config.load import load_config

WAYS: dict[str, dict[str, Any]] = {  # the same solutions in each step
    "one batch": {"sample_packing": False, "micro_batch_size": NUMBER},
    "packed": {"sample_packing": True, "micro_batch_size": NUMBER},
    "accumulated": {"sample_packing": False, "micro_batch_size": 3, "gradient_accumulation_steps": 4},
    "uneven": {"sample_packing": False, "micro_batch_size": 5, "gradient_accumulation_steps": 3},
}


def way(folder: Path, name: str, **keys: Any) -> Path:
    return config(folder, **keys, output_dir=str(folder / name)).rename(folder / f"{name}.yaml")


def same(ours: Path, theirs: Path) -> None:
    """Every number of two runs agrees."""
    for one, other in zip(tiny.metrics(ours), tiny.metrics(theirs), strict=True):
        for name in ("loss", "accuracy"):
            assert one[name] == pytest.approx(other[name], abs=1e-5, rel=1e-5), name
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("keys", [{}, {"adapter": "lora"}], ids=["full", "lora"])
def test_packed_accumulated_and_uneven_are_one_batch(keys: dict[str, Any], tmp_path: Path) -> None:
    for name, more in WAYS.items():
        tiny.train(way(tmp_path, name, **keys, **more))
    for name in WAYS:
        same(tmp_path / name, tmp_path / "one batch")


def test_two_processes_are_one(tmp_path: Path) -> None:
    tiny.train(way(tmp_path, "one"))
    split = {"sample_packing": False, "micro_batch_size": 5, "gradient_accumulation_steps": 2}
    tiny.torchrun(2, way(tmp_path, "two", **split))
    same(tmp_path / "two", tmp_path / "one")


@pytest.mark.parametrize("adapter", [None, "lora"])
def test_a_shared_prompt_is_a_repeated_one(adapter: str | None, tmp_path: Path) -> None:
    run = prepare(tiny.start(config(tmp_path, adapter=adapter)))
    policy = build_policy(run)
    found = []
    for share in (True, False):
        batch = collate(list(run.data.train), share=share, score_points=True)
        loss = run.hooks.compute_loss(run, policy, policy(batch), batch)["steps"].sum / batch.counts["tokens"]
        loss.backward()
        gradients = [p.grad for p in policy.model.parameters() if p.grad is not None]
        found.append((loss.item(), torch.cat([g.flatten().clone() for g in gradients])))
        policy.model.zero_grad()
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-5)
    assert (found[0][1] - found[1][1]).abs().max() <= 1e-5


@pytest.mark.parametrize("keys", [{}, {"adapter": "lora", "lora_dropout": 0.1}], ids=["full", "lora"])
def test_a_resumed_run_ends_bit_for_bit_as_one_that_was_not_stopped(keys: dict[str, Any], tmp_path: Path) -> None:
    steps = {"micro_batch_size": 3, "num_epochs": 9, "save_steps": 2, "resume_from_checkpoint": "auto", **keys}
    tiny.train(way(tmp_path, "whole", **steps, max_steps=6))
    parts = way(tmp_path, "parts", **steps, max_steps=6)
    tiny.train(parts, "max_steps=4")
    assert tiny.train(parts).steps == 6
    ours, theirs = tiny.weights(tmp_path / "parts"), tiny.weights(tmp_path / "whole")
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert any("score" in name and "bias" in name for name in ours)


def test_steps_that_say_what_is_wrong_are_learnt(tmp_path: Path) -> None:
    tiny.train(config(tmp_path, num_epochs=40, max_steps=40))
    lines = tiny.metrics(tmp_path / "out")
    assert lines[-1]["accuracy"] > max(0.9, lines[0]["accuracy"]) and lines[-1]["loss"] < lines[0]["loss"] / 2


def test_the_default_method_stands_back_and_is_there_without_the_switch(tmp_path: Path) -> None:
    def answers(**keys: Any) -> list[str]:
        _, hooks = load_config(config(tmp_path, **keys))
        return [call.plugin for call in hooks.calls("compute_loss")]

    text = [{"path": "text.jsonl", "type": "completion"}]
    assert answers() == ["prm"]
    off = {"process_reward_model": False, "datasets": text}
    assert answers(**off) == answers(**off | {"process_reward_model": None}) == ["sft"]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"center_rewards_coefficient": 0.1}, "center_rewards_coefficient belongs to the plugin"),
        ({"process_reward_model": 1}, "process_reward_model"),
        ({"datasets": [{"path": "x.jsonl", "type": "passthrough"}]}, "and the method trains on stepwise rows"),
        ({"step_separator": "x"}, "step_separator is no key here"),
    ],
)
def test_what_can_not_work_is_one_error_at_check(keys: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        tiny.start(config(tmp_path, **keys))
    (problem,) = caught.value.problems
    assert said in problem.message and "run.yaml:" in (problem.where or "")


def test_static_metadata_is_in_step() -> None:
    from tunesmith.plugins.plugin import describe

    path = Path(__file__).parent.parent / "tunesmith.json"
    assert json.loads(path.read_text()) == json.loads(json.dumps(describe("prm", tunesmith_prm)))
