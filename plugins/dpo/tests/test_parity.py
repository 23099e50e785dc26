"""Each loss that TRL has equals that of TRL's trainer: loss and gradients in float32, and runs of several steps."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests import method_checks, one_step, rows, tiny

LOSSES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # id -> keys of Tunesmith, options of TRL
    name: ({"dpo_loss_type": [name]}, {"loss_type": [name]})
    for name in (
        "sigmoid", "sigmoid_norm", "hinge", "ipo", "nca_pair", "bco_pair", "sppo_hard", "aot", "aot_unpaired",
        "apo_zero", "apo_down", "discopop", "sft",
    )
}  # fmt: skip
LOSSES |= {
    f"{name}-smoothed": (
        {"dpo_loss_type": name, "dpo_label_smoothing": 0.1},
        {"loss_type": [name], "label_smoothing": 0.1},
    )
    for name in ("exo_pair", "robust", "aot", "aot_unpaired")
}
LOSSES |= {
    f"sigmoid-{kind}": (
        {"f_divergence_type": kind, "dpo_loss_type": ["sigmoid"]},
        {"f_divergence_type": kind, "loss_type": ["sigmoid"]},
    )
    for kind in ("forward_kl", "js_divergence", "alpha_divergence")
}
LOSSES |= {
    "sigmoid-alpha": (
        {"f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": 1.5},
        {"f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": 1.5},
    ),
    "ipo-length": ({"ld_alpha": 0.3, "dpo_loss_type": ["ipo"]}, {"ld_alpha": 0.3, "loss_type": ["ipo"]}),
    "aot-length": ({"ld_alpha": 0.3, "dpo_loss_type": ["aot"]}, {"ld_alpha": 0.3, "loss_type": ["aot"]}),
    "sigmoid-weighted": ({"dpo_use_weighting": True}, {"use_weighting": True}),
    "discopop-tau": (
        {"dpo_loss_type": ["discopop"], "dpo_discopop_tau": 0.5},
        {"loss_type": ["discopop"], "discopop_tau": 0.5},
    ),
    "several": (
        {"dpo_loss_type": ["sigmoid", "bco_pair", "sft"], "dpo_loss_weights": [0.8, 0.2, 1], "rl_beta": 0.3},
        {"loss_type": ["sigmoid", "bco_pair", "sft"], "loss_weights": [0.8, 0.2, 1.0], "beta": 0.3},
    ),
}
METRICS = (
    "rewards/chosen",
    "rewards/rejected",
    "rewards/margins",
    "rewards/accuracies",
    "logps/chosen",
    "logps/rejected",
)


def trainer_of(run: Any, model: Any, reference: Any, folder: Path, **options: Any) -> Any:
    """Return TRL's trainer on the tokens of a run's pairs."""
    names = ("prompt_ids", "chosen_ids", "rejected_ids")
    tokens = [[segment.tokens.tolist() for segment in example.segments] for example in run.data.train]
    records = [dict(zip(names, parts, strict=True)) for parts in tokens]
    return method_checks.trl_trainer("DPO", model, reference, records, folder, **options)


def trl_step(run: Any, policy: Any, folder: Path, **options: Any) -> tuple[float, dict[str, torch.Tensor], Any]:
    """Return TRL's loss and gradients on all pairs of a run, and the trainer."""
    reference = AutoModelForCausalLM.from_pretrained(run.core.base_model, dtype=torch.float32)
    trainer = trainer_of(run, copy.deepcopy(policy.model), reference, folder, **options)
    model = trainer.model
    for network in (model, reference):
        network.set_attn_implementation("sdpa")
    inputs = trainer.data_collator([trainer.train_dataset[i] for i in range(len(trainer.train_dataset))])
    model.eval()
    loss = trainer.compute_loss(model, inputs)
    loss.backward()
    return loss.item(), one_step.gradients(model), trainer


@pytest.mark.parametrize("name", LOSSES)
def test_loss_and_gradients_equal_those_of_trl(name: str, tmp_path: Path) -> None:
    keys, options = LOSSES[name]
    run, policy = one_step.started(rows.config(tmp_path, "dpo", **keys))
    loss, terms = one_step.loss_of(run, policy, [list(run.data.train)])
    ours = one_step.gradients(policy.model)
    expected, grads, trainer = trl_step(run, policy, tmp_path / "trl", **options)
    assert loss == pytest.approx(expected, rel=1e-5, abs=1e-5)
    assert max(float(g.abs().max()) for g in ours.values()) > 1e-4
    assert one_step.largest_difference(ours, grads, scaled=True) < 1e-5
    for metric in METRICS:
        assert terms[metric] == pytest.approx(trainer._metrics["eval"][metric][0], rel=1e-5, abs=1e-5), metric


@pytest.mark.parametrize("architecture", ["qwen3", "gemma3", "gpt_neox"])
@pytest.mark.parametrize("name", ["sigmoid", "sigmoid-weighted", "aot_unpaired"])
def test_other_architectures_equal_trl(name: str, architecture: str, tmp_path: Path) -> None:
    keys, options = LOSSES[name]
    run, policy = one_step.started(rows.config(tmp_path, "dpo", architecture=architecture, **keys))
    loss, _ = one_step.loss_of(run, policy, [list(run.data.train)])
    ours = one_step.gradients(policy.model)
    expected, grads, _ = trl_step(run, policy, tmp_path / "trl", **options)
    assert loss == pytest.approx(expected, rel=1e-5, abs=1e-5)
    assert one_step.largest_difference(ours, grads, scaled=True) < 1e-5


@pytest.mark.parametrize("name", ["sigmoid", "ipo", "aot", "apo_zero", "several", "sigmoid-weighted"])
def test_a_run_of_several_steps_equals_that_of_trl(name: str, tmp_path: Path) -> None:
    keys, options = LOSSES[name]
    compare_runs(tmp_path, keys, options)


def test_a_synchronized_reference_equals_that_of_trl(tmp_path: Path) -> None:
    synced = {"sync_ref_model": True, "ref_model_sync_steps": 2, "ref_model_mixup_alpha": 0.6}
    compare_runs(tmp_path, synced, synced)
    tiny.train(rows.config(tmp_path, "dpo", "fixed"))
    last, other = tiny.metrics(tmp_path / "out")[-1], tiny.metrics(tmp_path / "fixed")[-1]
    assert abs(last["loss"] - other["loss"]) > 1e-4  # synchronization has an effect


def compare_runs(folder: Path, keys: dict[str, Any], options: dict[str, Any]) -> None:
    """Check that losses and rewards of four steps and the final weights equal those of TRL."""
    result = tiny.train(rows.config(folder, "dpo", **keys))
    lines = tiny.metrics(folder / "out")
    run = result.policy.run
    models = [AutoModelForCausalLM.from_pretrained(run.core.base_model, dtype=torch.float32) for _ in range(2)]
    trainer = trainer_of(run, *models, folder / "trl", **options)
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    for line, entry in zip(lines, logged, strict=True):
        for metric in ("loss", "rewards/margins", "logps/chosen"):
            assert line[metric] == pytest.approx(entry[metric], rel=1e-4, abs=2e-5), metric
    ours, expected = dict(result.policy.model.named_parameters()), dict(trainer.model.named_parameters())
    assert max(float((ours[name] - expected[name]).detach().abs().max()) for name in ours) < 1e-5
