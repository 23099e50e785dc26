"""Layouts, processes and resuming do not change a reward model; any rows of pairs train it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests import method_checks, rows, tiny
from tunesmith import ConfigError, PluginError, build_policy, collate
from tunesmith.api import plan, prepare, train
from tunesmith.config.load import load_config

ALL: dict[str, Any] = {"records": rows.pairs(12, margins=True), "center_rewards_coefficient": 0.05}
NAMES = ("loss", "accuracy", "margin", "min_reward", "mean_reward", "max_reward", "bradley_terry", "centering")


def config(folder: Path, name: str, **keys: Any) -> Path:
    return rows.config(folder, "reward", name, **(ALL | keys))


def check_same(ours: Path, theirs: Path) -> None:
    method_checks.check_same(ours, theirs, steps=3, names=NAMES)


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path: Path) -> None:
    """Three micro-batches on two processes. One of them gets a dummy, whose rewards are not counted."""
    split = {"sample_packing": False, "micro_batch_size": 5, "gradient_accumulation_steps": 2}
    held_out = {"test_datasets": [{"path": str(tmp_path / "pairs.jsonl"), "type": "passthrough"}]}
    tiny.train(config(tmp_path, "one", **held_out))
    tiny.torchrun(2, config(tmp_path, "two", **held_out, **split))
    check_same(tmp_path / "two", tmp_path / "one")
    last, other = tiny.metrics(tmp_path / "two")[-1], tiny.metrics(tmp_path / "one")[-1]
    for name in NAMES[:6]:
        assert last[f"eval_{name}"] == pytest.approx(other[f"eval_{name}"], abs=1e-5, rel=1e-5), name


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gemma3", "gpt_neox"])
@pytest.mark.parametrize("adapter", [None, "lora"])
def test_a_shared_prompt_equals_a_repeated_one(adapter: str | None, architecture: str, tmp_path: Path) -> None:
    run = prepare(tiny.start(config(tmp_path, "out", architecture=architecture, adapter=adapter)))
    policy = build_policy(run)
    trained = {name: p for name, p in policy.model.named_parameters() if p.requires_grad}
    if adapter:  # its second matrices start at zero, and so do the gradients of the first ones
        torch.manual_seed(0)
        for name, p in trained.items():
            p.data += 0.02 * torch.randn_like(p) if "lora_B" in name else 0.0
    steps = {}
    for share in (True, False):
        batch = collate(list(run.data.train), share=share)
        terms = run.hooks.compute_loss(run, policy, policy(batch), batch)
        loss = torch.stack([term.sum for term in terms.values() if not term.metric]).sum() / batch.examples
        loss.backward()
        steps[share] = loss.item(), {name: p.grad.clone() for name, p in trained.items()}
        policy.model.zero_grad()
    assert steps[True][0] == pytest.approx(steps[False][0], abs=1e-5)
    largest = max(g.abs().max().item() for g in steps[False][1].values())
    for name, gradient in steps[True][1].items():
        assert (gradient - steps[False][1][name]).abs().max().item() <= 1e-5 * max(largest, 1.0), name


@pytest.mark.parametrize(
    "entry",
    [
        {"type": "bradley_terry.llama3.icr", "field_prompt": "prompt"},
        {"type": "bradley_terry.chat_template"},
        {"type": "chatml.prompt_pairs"},
    ],
)
def test_any_type_of_pairs_trains_a_reward_model(entry: dict[str, Any], tmp_path: Path) -> None:
    pairs = rows.pairs(12)
    if "chat_template" in entry["type"]:
        pairs = [row | {"input": row["prompt"]} for row in pairs]
    data = tiny.write_rows(tmp_path / "data.jsonl", pairs)
    tiny.train(rows.config(tmp_path, "reward", datasets=[{"path": str(data), **entry}], sequence_len=256))
    lines = tiny.metrics(tmp_path / "out")
    assert lines[-1]["loss"] < lines[0]["loss"]


def test_planning_a_run_does_not_change_its_training(tmp_path: Path) -> None:
    """Planning computes the loss on tensors without content, whose rewards must not be recorded."""
    run = prepare(tiny.start(config(tmp_path, "planned")))
    plan(run)
    train(run)
    tiny.train(config(tmp_path, "trained"))
    check_same(tmp_path / "planned", tmp_path / "trained")


def test_the_default_method_is_used_only_without_the_switch(tmp_path: Path) -> None:
    def method(**keys: Any) -> list[str]:
        return method_checks.loss_plugins(rows.config(tmp_path, "reward", **keys))

    text = [{"path": "text.jsonl", "type": "completion"}]
    assert method() == ["reward"]
    assert method(reward_model=False, datasets=text) == method(reward_model=None, datasets=text) == ["sft"]


def test_a_second_method_is_refused(tmp_path: Path) -> None:
    with pytest.raises((ConfigError, PluginError)) as caught:
        load_config(rows.config(tmp_path, "reward", process_reward_model=True))
    assert "compute_loss" in str(caught.value) and "reward" in str(caught.value)


def test_a_key_of_the_method_names_what_selects_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        tiny.start(rows.config(tmp_path, "reward", reward_model=None, center_rewards_coefficient=0.1))
    orphan, kind = caught.value.problems
    assert "center_rewards_coefficient belongs to reward" in orphan.message and "reward_model: true" in str(orphan.help)
    assert "makes pair" in kind.message


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"center_rewards_coefficient": -0.1}, "center_rewards_coefficient"),
        ({"center_rewards_coeficient": 0.1}, "did you mean 'center_rewards_coefficient'"),
        ({"reward_model": "yes"}, "reward_model"),
        ({"datasets": [{"path": "x.jsonl", "type": "stepwise_supervised"}]}, "makes stepwise rows"),
        ({"datasets": [{"path": "x.jsonl", "type": "completion"}]}, "but the method trains on pair rows"),
    ],
)
def test_an_invalid_config_is_one_error(keys: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        tiny.start(rows.config(tmp_path, "reward", **keys))
    (problem,) = caught.value.problems
    assert message in f"{problem.message} {problem.help}" and "out.yaml:" in (problem.where or "")
