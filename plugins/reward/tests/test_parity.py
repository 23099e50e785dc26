"""Loss, gradients and trajectories equal those of TRL's RewardTrainer on the same model and rows, in float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from plugins.reward.tests.scoring import classifier, sequences
from tests import rows, tiny
from tunesmith import build_policy, collate
from tunesmith.api import prepare

WITH_MARGINS = rows.pairs(12, margins=True)
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "centered": {"center_rewards_coefficient": 0.05},
    "margins": {"records": WITH_MARGINS},
    "both": {"records": WITH_MARGINS, "center_rewards_coefficient": 0.05},
}


def trainer(run: Any, model: Any, folder: Path, **keys: Any) -> Any:
    """Return TRL's trainer on the tokens and margins of a run's examples."""
    from datasets import Dataset
    from trl import RewardConfig, RewardTrainer

    records = []
    for example in run.data.train:
        chosen, rejected = sequences([example])
        records.append({"chosen_ids": chosen, "rejected_ids": rejected, **example.columns})
    centering = run.config.document.values.get("center_rewards_coefficient")
    options = {
        "output_dir": str(folder), "use_cpu": True, "report_to": "none", "per_device_train_batch_size": len(records),
        "center_rewards_coefficient": centering, "max_length": None, "disable_tqdm": True, "bf16": False,
        "gradient_checkpointing": False, "save_strategy": "no", **keys,
    }  # fmt: skip
    return RewardTrainer(model, RewardConfig(**options), train_dataset=Dataset.from_list(records),
                         processing_class=tiny.tokenizer())  # fmt: skip


@pytest.mark.parametrize(
    ("case", "architecture"),
    [*((case, "llama") for case in CASES), *(("both", other) for other in ("qwen3", "gemma3", "gpt_neox"))],
)
def test_loss_and_gradients_equal_those_of_trl(case: str, architecture: str, tmp_path: Path) -> None:
    classifier(tmp_path / f"model-{architecture}", architecture)
    run = prepare(tiny.start(rows.config(tmp_path, "reward", architecture=architecture, **CASES[case])))
    policy = build_policy(run)
    examples = list(run.data.train)
    batch = collate(examples)
    terms = run.hooks.compute_loss(run, policy, policy(batch), batch)
    loss = torch.stack([term.sum / len(examples) for term in terms.values() if not term.metric]).sum()
    loss.backward()
    ours = {name: p.grad.clone() for name, p in policy.model.named_parameters()}

    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / f"model-{architecture}", num_labels=1)
    theirs = trainer(run, model, tmp_path / "trl")
    inputs = theirs.data_collator(list(theirs.train_dataset))
    expected = theirs.compute_loss(model.train(), inputs)
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    scale = max(p.grad.abs().max().item() for p in model.parameters())
    for name, p in model.named_parameters():
        assert (ours[name] - p.grad).abs().max().item() <= 1e-5 * max(scale, 1.0), name
    logged = theirs._metrics["train"]
    for name in ("accuracy", "margin", "mean_reward"):
        count = batch.sequences if name == "mean_reward" else batch.examples
        assert terms[name].sum.item() / count == pytest.approx(logged[name][0], abs=1e-5), name


@pytest.mark.parametrize("case", ["plain", "both"])
def test_three_steps_end_with_the_weights_of_trl(case: str, tmp_path: Path) -> None:
    classifier(tmp_path / "model-llama")
    path = rows.config(tmp_path, "reward", **CASES[case], learning_rate=1e-3)
    tiny.train(path)
    ours = tiny.metrics(tmp_path / "out")
    run = prepare(tiny.start(path))
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model-llama", num_labels=1)
    options = {"num_train_epochs": 3, "learning_rate": 1e-3, "lr_scheduler_type": "constant", "logging_steps": 1}
    theirs = trainer(run, model, tmp_path / "trl", **options, weight_decay=0.0, max_grad_norm=0.0)
    theirs.train()
    logged = [line for line in theirs.state.log_history if "accuracy" in line]
    assert len(ours) == len(logged) == 3
    for line, other in zip(ours, logged, strict=True):
        for name in ("loss", "accuracy", "margin", "min_reward", "mean_reward", "max_reward"):
            # TRL rounds its log to four significant digits or places
            assert line[name] == pytest.approx(other[name], rel=1e-3, abs=1e-4), name
    trained = dict(model.named_parameters())
    for name, value in tiny.weights(tmp_path / "out").items():
        assert (value - trained[name]).abs().max().item() <= 1e-5, name
