"""Loss and gradient do not depend on the layout of pairs, the split into micro-batches, or the number of processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests import method_checks, one_step, rows, tiny

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
def test_layouts_and_micro_batches_give_the_same_step(
    name: str, architecture: str, adapter: str | None, tmp_path: Path
) -> None:
    path = rows.config(tmp_path, "dpo", architecture=architecture, adapter=adapter, **LOSSES[name])
    method_checks.check_layouts(*one_step.started(path), scaled=True)


def test_aot_couples_the_pairs_of_a_step_and_not_of_a_micro_batch(tmp_path: Path) -> None:
    """Without coupling, the test above would not see whether it is right: for single pairs, aot is another loss."""
    run, policy = one_step.started(rows.config(tmp_path, "dpo", dpo_loss_type="aot"))
    examples = list(run.data.train)
    loss, _ = one_step.loss_of(run, policy, [examples])
    alone = sum(one_step.loss_of(run, policy, [[example]])[0] for example in examples) / len(examples)
    assert abs(loss - alone) > 1e-3


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path: Path) -> None:
    """Micro-batches of 3, 3 and 1 pairs on two processes, with a dummy on one of them; replicated and sharded."""
    split = {"micro_batch_size": 3, "gradient_accumulation_steps": 2}
    synced = {"sync_ref_model": True, "ref_model_sync_steps": 2}
    runs: dict[str, dict[str, Any]] = {
        **LOSSES,
        "synchronized": synced,
        "sharded weighted": LOSSES["weighted"] | {"fsdp_config": {}},
        "sharded aot": LOSSES["aot"] | {"fsdp_config": {}},
        "sharded synchronized": synced | {"fsdp_config": {"reshard_after_forward": False}},
    }
    configs = []
    for name, keys in runs.items():
        folder = tmp_path / name
        folder.mkdir()
        tiny.train(rows.config(folder, "dpo", "one", **{k: v for k, v in keys.items() if k != "fsdp_config"}))
        configs.append(rows.config(folder, "dpo", "two", **keys, **split))
    tiny.torchrun(2, *configs)
    for name in runs:
        check_same(tmp_path / name / "two", tmp_path / name / "one")


def check_same(ours: Path, theirs: Path) -> None:
    names = ("loss", "rewards/chosen", "rewards/accuracies", "logps/rejected")
    method_checks.check_same(ours, theirs, steps=4, names=names, tolerance=2e-5)


def test_a_resumed_run_continues_with_its_reference(tmp_path: Path) -> None:
    keys = {"sync_ref_model": True, "ref_model_sync_steps": 2, "save_steps": 3}
    complete = tiny.train(rows.config(tmp_path, "dpo", "complete", **keys))
    tiny.train(rows.config(tmp_path, "dpo", "parts", **keys), "max_steps=3")
    resumed = tiny.train(rows.config(tmp_path, "dpo", "parts", **keys), "resume_from_checkpoint=auto")
    last, other = tiny.metrics(tmp_path / "parts")[-1], tiny.metrics(tmp_path / "complete")[-1]
    assert last["step"] == other["step"] == 4 and last["loss"] == other["loss"]
    with complete.policy.reference() as ours, resumed.policy.reference() as theirs:
        assert all(torch.equal(a, b) for a, b in zip(ours.model.parameters(), theirs.model.parameters(), strict=True))
        initial = tiny.weights(tmp_path / "model-llama")
        assert not torch.equal(dict(ours.model.named_parameters())["lm_head.weight"], initial["lm_head.weight"])
