"""How pairs are laid out, split over micro-batches and dealt to processes changes neither loss nor gradient."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from plugins.dpo.tests import made
from tests import one_step, tiny

LOSSES: dict[str, dict[str, Any]] = {
    "sigmoid and sft": {"dpo_loss_type": ["sigmoid", "sft"], "dpo_loss_weights": [1.0, 0.5]},
    "ipo of lengths": {"dpo_loss_type": ["ipo"], "ld_alpha": 0.3},
    "aot": {"dpo_loss_type": ["aot"]},
    "aot_unpaired": {"dpo_loss_type": ["aot_unpaired"], "dpo_label_smoothing": 0.1},
    "weighted": {"dpo_use_weighting": True},
}


@pytest.mark.parametrize("adapter", [None, "lora"])
@pytest.mark.parametrize("architecture", ["llama", "gpt_neox"])
@pytest.mark.parametrize("name", LOSSES)
def test_shared_repeated_packed_alone_and_accumulated_are_one(
    name: str, architecture: str, adapter: str | None, tmp_path: Path
) -> None:
    run, policy = one_step.started(made.config(tmp_path, architecture=architecture, adapter=adapter, **LOSSES[name]))
    examples = list(run.data.train)
    ways = {
        "repeated": ([examples], False),
        "alone": ([[e] for e in examples], True),
        "accumulated": ([examples[:2], examples[2:5], examples[5:]], True),
    }
    loss, terms = one_step.loss_of(run, policy, [examples])
    gradients = one_step.gradients(policy.model)
    for way, (groups, share) in ways.items():
        other, others = one_step.loss_of(run, policy, groups, share)
        assert other == pytest.approx(loss, abs=1e-5), way
        assert others == pytest.approx(terms, rel=1e-5, abs=1e-5), way
        assert one_step.largest_difference(one_step.gradients(policy.model), gradients, scaled=True) < 1e-5, way


def test_what_aot_couples_is_the_step_and_not_the_micro_batch(tmp_path: Path) -> None:
    """The rule that the test above relies on: taken for each pair alone, aot is another loss."""
    run, policy = one_step.started(made.config(tmp_path, dpo_loss_type="aot"))
    examples = list(run.data.train)
    whole, _ = one_step.loss_of(run, policy, [examples])
    apart = sum(one_step.loss_of(run, policy, [[e]])[0] for e in examples) / len(examples)
    assert abs(whole - apart) > 1e-3


def test_packed_rows_train_as_pairs_of_their_own_do(tmp_path: Path) -> None:
    tiny.train(made.config(tmp_path, "apart"))
    tiny.train(made.config(tmp_path, "packed", sample_packing=True))
    same(tmp_path / "packed", tmp_path / "apart")


@pytest.mark.slow
def test_two_processes_are_one(tmp_path: Path) -> None:
    """Micro-batches of 3, 3 and 1 pairs on two processes, one of which runs a dummy; replicated and sharded."""
    split = {"micro_batch_size": 3, "gradient_accumulation_steps": 2}
    synced = {"sync_ref_model": True, "ref_model_sync_steps": 2}
    runs: dict[str, dict[str, Any]] = {
        **LOSSES,
        "synchronised": synced,
        "sharded weighted": LOSSES["weighted"] | {"fsdp_config": {}},
        "sharded aot": LOSSES["aot"] | {"fsdp_config": {}},
        "sharded synchronised": synced | {"fsdp_config": {"reshard_after_forward": False}},
    }
    configs = []
    for name, keys in runs.items():
        folder = tmp_path / name
        folder.mkdir()
        tiny.train(made.config(folder, "one", **{k: v for k, v in keys.items() if k != "fsdp_config"}))
        configs.append(made.config(folder, "two", **keys, **split))
    tiny.torchrun(2, *configs)
    for name in runs:
        same(tmp_path / name / "two", tmp_path / name / "one")


def same(ours: Path, theirs: Path) -> None:
    """Loss, gradient norm and metrics of two runs agree, step by step."""
    lines = tiny.metrics(ours)
    assert len(lines) == 4 and all(math.isfinite(line["loss"]) for line in lines)
    for line, other in zip(lines, tiny.metrics(theirs), strict=True):
        for name in ("loss", "rewards/chosen", "rewards/accuracies", "logps/rejected"):
            assert line[name] == pytest.approx(other[name], rel=1e-5, abs=2e-5), f"{ours}: {name}"
        assert line["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-4, abs=1e-5), ours


def test_a_resumed_run_goes_on_with_the_reference_that_it_had(tmp_path: Path) -> None:
    keys = {"sync_ref_model": True, "ref_model_sync_steps": 2, "save_steps": 3}
    whole = tiny.train(made.config(tmp_path, "whole", **keys))
    tiny.train(made.config(tmp_path, "parts", **keys), "max_steps=3")
    resumed = tiny.train(made.config(tmp_path, "parts", **keys), "resume_from_checkpoint=auto")
    last, other = tiny.metrics(tmp_path / "parts")[-1], tiny.metrics(tmp_path / "whole")[-1]
    assert last["step"] == other["step"] == 4 and last["loss"] == other["loss"]
    with whole.policy.reference() as one, resumed.policy.reference() as two:
        assert all(torch.equal(a, b) for a, b in zip(one.model.parameters(), two.model.parameters(), strict=True))
        still = tiny.weights(tmp_path / "model-llama")
        assert not torch.equal(dict(one.model.named_parameters())["lm_head.weight"], still["lm_head.weight"])
