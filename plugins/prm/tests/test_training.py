"""Layouts, processes and resuming do not change a process reward model, and invalid configs are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests import method_checks, rows, tiny
from tunesmith import ConfigError, build_policy, collate
from tunesmith.api import prepare


@pytest.mark.parametrize("adapter", [None, "lora"])
def test_a_shared_prompt_equals_a_repeated_one(adapter: str | None, tmp_path: Path) -> None:
    run = prepare(tiny.start(rows.config(tmp_path, "prm", adapter=adapter)))
    policy = build_policy(run)
    steps = []
    for share in (True, False):
        batch = collate(list(run.data.train), share=share)
        loss = run.hooks.compute_loss(run, policy, policy(batch), batch)["steps"].sum / batch.counts["tokens"]
        loss.backward()
        gradients = [p.grad for p in policy.model.parameters() if p.grad is not None]
        steps.append((loss.item(), torch.cat([g.flatten().clone() for g in gradients])))
        policy.model.zero_grad()
    assert steps[0][0] == pytest.approx(steps[1][0], abs=1e-5)
    assert (steps[0][1] - steps[1][1]).abs().max() <= 1e-5


def test_labels_that_depend_on_a_word_are_learned(tmp_path: Path) -> None:
    tiny.train(rows.config(tmp_path, "prm", num_epochs=40, max_steps=40))
    lines = tiny.metrics(tmp_path / "out")
    assert lines[-1]["accuracy"] > max(0.9, lines[0]["accuracy"]) and lines[-1]["loss"] < lines[0]["loss"] / 2


def test_the_default_method_is_used_only_without_the_switch(tmp_path: Path) -> None:
    def method(**keys: Any) -> list[str]:
        return method_checks.loss_plugins(rows.config(tmp_path, "prm", **keys))

    text = [{"path": "text.jsonl", "type": "completion"}]
    assert method() == ["prm"]
    off = {"process_reward_model": False, "datasets": text}
    assert method(**off) == method(**off | {"process_reward_model": None}) == ["sft"]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"center_rewards_coefficient": 0.1}, "center_rewards_coefficient belongs to reward"),
        ({"process_reward_model": 1}, "process_reward_model"),
        ({"datasets": [{"path": "x.jsonl", "type": "passthrough"}]}, "but the method trains on stepwise rows"),
        ({"step_separator": "x"}, "unknown-key: misplaced key: step_separator"),
    ],
)
def test_an_invalid_config_is_one_error(keys: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        tiny.start(rows.config(tmp_path, "prm", **keys))
    (problem,) = caught.value.problems
    assert message in f"{problem.code}: {problem.message}" and "out.yaml:" in (problem.where or "")
