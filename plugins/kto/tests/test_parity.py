"""Loss, gradients, metrics and trajectories of KTO equal those of TRL's trainer on the same mismatched answers."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests import method_checks, one_step, rows, tiny

CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # id -> keys of Tunesmith, options of TRL
    "kto": ({}, {}),
    "weighted": (
        {"rl_beta": 0.3, "kto_desirable_weight": 1.5, "kto_undesirable_weight": 0.7},
        {"beta": 0.3, "desirable_weight": 1.5, "undesirable_weight": 0.7},
    ),
    "apo_zero_unpaired": ({"kto_loss_type": "apo_zero_unpaired"}, {"loss_type": "apo_zero_unpaired"}),
}
METRICS = (
    "rewards/chosen", "rewards/rejected", "rewards/margins", "logps/chosen", "logps/rejected",
)  # fmt: skip
cases = pytest.mark.parametrize(("keys", "options"), CASES.values(), ids=CASES)
BELOW, ABOVE = 1, 25
"""Seeds of policies whose mean log-ratio of mismatched answers is below and above 0."""


def base(run: Any) -> Any:
    return AutoModelForCausalLM.from_pretrained(run.core.base_model, dtype=torch.float32)


def trainer_of(run: Any, model: Any, folder: Path, **options: Any) -> Any:
    """Return TRL's trainer on the tokens and the mismatched answers of a run."""
    names = ("prompt_ids", "completion_ids", "KL_completion_ids")
    records = []
    for example in run.data.train:
        tokens = zip(names, (segment.tokens.tolist() for segment in example.segments), strict=False)
        records.append({**dict(tokens), "label": bool(example.columns["label"])})
    return method_checks.trl_trainer("KTO", model, base(run), records, folder, **(rows.SMOOTH | options))


@pytest.mark.parametrize("seed", [BELOW, ABOVE])
@cases
def test_loss_and_gradients_equal_those_of_trl(
    keys: dict[str, Any], options: dict[str, Any], seed: int, tmp_path: Path
) -> None:
    run, policy = one_step.started(rows.config(tmp_path, "kto", **keys), seed)
    examples = list(run.data.train)
    loss, terms = one_step.loss_of(run, policy, [examples])
    ours = one_step.gradients(policy.model)
    trainer = trainer_of(run, copy.deepcopy(policy.model), tmp_path / "trl", **options)
    for network in (trainer.model, trainer.ref_model):
        network.set_attn_implementation("sdpa")
    inputs = trainer.data_collator([trainer.train_dataset[i] for i in range(len(examples))])
    trainer.model.eval()
    expected = trainer.compute_loss(trainer.model, inputs)
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-5, abs=1e-5)
    grads = one_step.gradients(trainer.model)
    assert max(float(g.abs().max()) for g in ours.values()) > 1e-3
    assert one_step.largest_difference(ours, grads) < 1e-5
    kl = terms.get("kl", 0.0)
    assert kl == pytest.approx(trainer._metrics["eval"]["kl"][0], rel=1e-5, abs=1e-5)
    assert (kl > 0.1) == (seed == ABOVE and "kto_loss_type" not in keys)


@cases
def test_four_steps_end_with_the_weights_of_trl(keys: dict[str, Any], options: dict[str, Any], tmp_path: Path) -> None:
    result = tiny.train(rows.config(tmp_path, "kto", learning_rate=1e-2, **keys))
    run = result.policy.run
    trainer = trainer_of(run, base(run), tmp_path / "trl", learning_rate=1e-2, **options)
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    names = ("loss", *METRICS, *(("kl",) if "kto_loss_type" not in keys else ()))
    for line, entry in zip(tiny.metrics(tmp_path / "out"), logged, strict=True):
        assert {k: line[k] for k in names} == pytest.approx({k: entry[k] for k in names}, rel=1e-4, abs=2e-5)
    assert logged[-1]["rewards/margins"] > 0.01
    ours, theirs = dict(result.policy.model.named_parameters()), dict(trainer.model.named_parameters())
    assert max(float((ours[name] - theirs[name]).detach().abs().max()) for name in ours) < 1e-5
