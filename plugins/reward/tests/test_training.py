"""From YAML to a reward model: what does not change it, how it resumes, and that pairs are all it takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import tunesmith_reward

from plugins.reward.tests.made import NUMBER, config, rows
from tests import tiny
from tunesmith import ConfigError, PluginError, build_policy, collate
from tunesmith.api import plan, prepare, train
from tunesmith.config.load import load_config

ALL = {"margins": True, "center_rewards_coefficient": 0.05}
WAYS: dict[str, dict[str, Any]] = {  # the same pairs in each step
    "one batch": {"sample_packing": False, "micro_batch_size": NUMBER},
    "packed": {"sample_packing": True, "micro_batch_size": NUMBER},
    "accumulated": {"sample_packing": False, "micro_batch_size": 3, "gradient_accumulation_steps": 4},
    "uneven": {"sample_packing": False, "micro_batch_size": 5, "gradient_accumulation_steps": 3},
}
NAMES = ("loss", "accuracy", "margin", "min_reward", "mean_reward", "max_reward", "bradley_terry", "centering")


def way(folder: Path, name: str, **keys: Any) -> Path:
    path = config(folder, **(ALL | keys), output_dir=str(folder / name))
    return path.rename(folder / f"{name}.yaml")


def same(ours: Path, theirs: Path) -> None:
    """Every number and the final weights of two runs agree."""
    mine, others = tiny.metrics(ours), tiny.metrics(theirs)
    for one, other in zip(mine, others, strict=True):
        for name in NAMES:
            assert one[name] == pytest.approx(other[name], abs=1e-5, rel=1e-5), name
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("keys", [{}, {"adapter": "lora"}], ids=["full", "lora"])
def test_packed_accumulated_and_uneven_are_one_batch(keys: dict[str, Any], tmp_path: Path) -> None:
    for name, more in WAYS.items():
        tiny.train(way(tmp_path, name, **keys, **more))
    for name in WAYS:
        same(tmp_path / name, tmp_path / "one batch")


def test_two_processes_are_one(tmp_path: Path) -> None:
    """Three micro-batches on two processes: in one of them a dummy, whose rewards count nowhere."""
    split = {"sample_packing": False, "micro_batch_size": 5, "gradient_accumulation_steps": 2}
    held = {"test_datasets": [{"path": str(tmp_path / "pairs-with-margins.jsonl"), "type": "passthrough"}]}
    tiny.train(way(tmp_path, "one", **held))
    tiny.torchrun(2, way(tmp_path, "two", **held, **split))
    same(tmp_path / "two", tmp_path / "one")
    last, other = tiny.metrics(tmp_path / "two")[-1], tiny.metrics(tmp_path / "one")[-1]
    for name in NAMES[:6]:
        assert last[f"eval_{name}"] == pytest.approx(other[f"eval_{name}"], abs=1e-5, rel=1e-5), name


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gemma3", "gpt_neox"])
@pytest.mark.parametrize("adapter", [None, "lora"])
def test_a_shared_prompt_is_one_repeated_for_both_answers(
    adapter: str | None, architecture: str, tmp_path: Path
) -> None:
    run = prepare(tiny.start(config(tmp_path, architecture, adapter=adapter, **ALL)))
    policy = build_policy(run)
    trained = {name: p for name, p in policy.model.named_parameters() if p.requires_grad}
    if adapter:  # its second matrices are zero at first, and then so are the gradients of the others
        torch.manual_seed(0)
        for name, p in trained.items():
            p.data += 0.02 * torch.randn_like(p) if "lora_B" in name else 0.0
    found = {}
    for share in (True, False):
        batch = collate(list(run.data.train), share=share, score_points=True)
        terms = run.hooks.compute_loss(run, policy, policy(batch), batch)
        loss = torch.stack([term.sum for term in terms.values() if not term.metric]).sum() / batch.examples
        loss.backward()
        found[share] = loss.item(), {name: p.grad.clone() for name, p in trained.items()}
        policy.model.zero_grad()
    assert found[True][0] == pytest.approx(found[False][0], abs=1e-5)
    largest = max(g.abs().max().item() for g in found[False][1].values())
    for name, gradient in found[True][1].items():
        assert (gradient - found[False][1][name]).abs().max().item() <= 1e-5 * max(largest, 1.0), name


@pytest.mark.parametrize("keys", [{}, {"adapter": "lora", "lora_dropout": 0.1}], ids=["full", "lora"])
def test_a_resumed_run_ends_bit_for_bit_as_one_that_was_not_stopped(keys: dict[str, Any], tmp_path: Path) -> None:
    steps = {"micro_batch_size": 3, "num_epochs": 9, "save_steps": 2, "resume_from_checkpoint": "auto", **keys}
    whole = way(tmp_path, "whole", **steps, max_steps=6)
    tiny.train(whole)
    parts = way(tmp_path, "parts", **steps, max_steps=6)
    tiny.train(parts, "max_steps=4")
    assert tiny.train(parts).steps == 6
    ours, theirs = tiny.weights(tmp_path / "parts"), tiny.weights(tmp_path / "whole")
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert any("score" in name for name in ours)
    for one, other in zip(tiny.metrics(tmp_path / "parts"), tiny.metrics(tmp_path / "whole"), strict=True):
        assert all(one[name] == other[name] for name in ("loss", "min_reward", "max_reward"))


@pytest.mark.parametrize(
    "entry",
    [
        {"type": "bradley_terry.llama3.icr", "field_prompt": "prompt"},
        {"type": "bradley_terry.chat_template"},
        {"type": "chatml.prompt_pairs"},
    ],
)
def test_any_rows_of_pairs_train_it(entry: dict[str, Any], tmp_path: Path) -> None:
    made = [row | {"input": row["prompt"]} for row in rows()] if "chat_template" in entry["type"] else rows()
    data = tiny.write_rows(tmp_path / "data.jsonl", made)
    tiny.train(config(tmp_path, datasets=[{"path": str(data), **entry}], sequence_len=256))
    lines = tiny.metrics(tmp_path / "out")
    assert lines[-1]["loss"] < lines[0]["loss"]


def test_a_run_that_was_planned_trains_as_any_other(tmp_path: Path) -> None:
    """Counting memory runs the loss on tensors without content, which nothing may be kept of."""
    run = prepare(tiny.start(way(tmp_path, "planned")))
    plan(run)
    train(run)
    tiny.train(way(tmp_path, "trained"))
    same(tmp_path / "planned", tmp_path / "trained")


def test_the_default_method_stands_back_and_is_there_without_the_switch(tmp_path: Path) -> None:
    def answers(**keys: Any) -> list[str]:
        _, hooks = load_config(config(tmp_path, **keys))
        return [call.plugin for call in hooks.calls("compute_loss")]

    text = [{"path": "text.jsonl", "type": "completion"}]
    assert answers() == ["reward"]
    assert answers(reward_model=False, datasets=text) == answers(reward_model=None, datasets=text) == ["sft"]


def test_a_second_method_beside_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises((ConfigError, PluginError)) as caught:
        load_config(config(tmp_path, process_reward_model=True))
    assert "compute_loss" in str(caught.value) and "reward" in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"reward_model": None, "center_rewards_coefficient": 0.1}, "center_rewards_coefficient belongs to the plugin"),
        ({"center_rewards_coefficient": -0.1}, "center_rewards_coefficient"),
        ({"center_rewards_coeficient": 0.1}, "did you mean 'center_rewards_coefficient'"),
        ({"reward_model": "yes"}, "reward_model"),
        ({"datasets": [{"path": "x.jsonl", "type": "stepwise_supervised"}]}, "makes stepwise rows"),
        ({"datasets": [{"path": "x.jsonl", "type": "completion"}]}, "and the method trains on pair rows"),
    ],
)
def test_what_can_not_work_is_one_error_at_check(keys: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        tiny.start(config(tmp_path, **keys))
    (problem,) = caught.value.problems
    assert said in f"{problem.message} {problem.help}" and "run.yaml:" in (problem.where or "")


def test_static_metadata_is_in_step() -> None:
    from tunesmith.plugins.plugin import describe

    path = Path(__file__).parent.parent / "tunesmith.json"
    assert json.loads(path.read_text()) == json.loads(json.dumps(describe("reward", tunesmith_reward)))
