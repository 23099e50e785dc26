"""Every loss that TRL has, against TRL's own trainer: loss and all gradients in float32, and runs of several steps."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from plugins.dpo.tests import made
from tests import one_step, tiny

LOSSES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # id -> our keys, TRL's
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


def theirs(run: Any, policy: Any, folder: Path, **options: Any) -> tuple[float, dict[str, torch.Tensor], Any]:
    """TRL's loss and gradients on all of a run's pairs, and the trainer."""
    reference = AutoModelForCausalLM.from_pretrained(run.core.base_model, dtype=torch.float32)
    trainer = made.trainer(copy.deepcopy(policy.model), reference, list(run.data.train), folder, **options)
    model = trainer.model
    for network in (model, reference):
        network.set_attn_implementation("sdpa")
    inputs = trainer.data_collator([trainer.train_dataset[i] for i in range(len(trainer.train_dataset))])
    model.eval()
    loss = trainer.compute_loss(model, inputs)
    loss.backward()
    return loss.item(), one_step.gradients(model), trainer


@pytest.mark.parametrize("name", LOSSES)
def test_loss_and_gradients_are_those_of_trl(name: str, tmp_path: Path) -> None:
    keys, options = LOSSES[name]
    run, policy = one_step.started(made.config(tmp_path, **keys))
    loss, terms = one_step.loss_of(run, policy, [list(run.data.train)])
    ours = one_step.gradients(policy.model)
    expected, grads, trainer = theirs(run, policy, tmp_path / "trl", **options)
    assert loss == pytest.approx(expected, rel=1e-5, abs=1e-5)
    assert max(float(g.abs().max()) for g in ours.values()) > 1e-4
    assert one_step.largest_difference(ours, grads, scaled=True) < 1e-5
    for metric in METRICS:
        assert terms[metric] == pytest.approx(trainer._metrics["eval"][metric][0], rel=1e-5, abs=1e-5), metric


@pytest.mark.parametrize("architecture", ["qwen3", "gemma3", "gpt_neox"])
@pytest.mark.parametrize("name", ["sigmoid", "sigmoid-weighted", "aot_unpaired"])
def test_other_architectures_too(name: str, architecture: str, tmp_path: Path) -> None:
    keys, options = LOSSES[name]
    run, policy = one_step.started(made.config(tmp_path, architecture=architecture, **keys))
    loss, _ = one_step.loss_of(run, policy, [list(run.data.train)])
    ours = one_step.gradients(policy.model)
    expected, grads, _ = theirs(run, policy, tmp_path / "trl", **options)
    assert loss == pytest.approx(expected, rel=1e-5, abs=1e-5)
    assert one_step.largest_difference(ours, grads, scaled=True) < 1e-5


@pytest.mark.parametrize("name", ["sigmoid", "ipo", "aot", "apo_zero", "several", "sigmoid-weighted"])
def test_a_run_of_several_steps_is_that_of_trl(name: str, tmp_path: Path) -> None:
    keys, options = LOSSES[name]
    follow(tmp_path, keys, options)


def test_a_reference_that_follows_the_policy_is_that_of_trl(tmp_path: Path) -> None:
    synced = {"sync_ref_model": True, "ref_model_sync_steps": 2, "ref_model_mixup_alpha": 0.6}
    follow(tmp_path, synced, synced)
    still = tmp_path / "still"
    tiny.train(made.config(tmp_path, "still"))
    last, other = tiny.metrics(tmp_path / "out")[-1], tiny.metrics(still)[-1]
    assert abs(last["loss"] - other["loss"]) > 1e-4  # it does something


def follow(folder: Path, keys: dict[str, Any], options: dict[str, Any]) -> None:
    """Train the same four steps by both, and compare losses and rewards step by step, and the weights at the end."""
    result = tiny.train(made.config(folder, **keys))
    lines = tiny.metrics(folder / "out")
    run = result.policy.run
    models = [AutoModelForCausalLM.from_pretrained(run.core.base_model, dtype=torch.float32) for _ in range(2)]
    trainer = made.trainer(*models, list(run.data.train), folder / "trl", **options)
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    for line, entry in zip(lines, logged, strict=True):
        for metric in ("loss", "rewards/margins", "logps/chosen"):
            assert line[metric] == pytest.approx(entry[metric], rel=1e-4, abs=2e-5), metric
    ours, expected = dict(result.policy.model.named_parameters()), dict(trainer.model.named_parameters())
    assert max(float((ours[name] - expected[name]).detach().abs().max()) for name in ours) < 1e-5
