"""Loss, gradients and whole trajectories are those of TRL's RewardTrainer: same model, same rows, float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from plugins.reward.tests.made import NUMBER, classifier, config, sequences
from tests import tiny
from tunesmith import build_policy, collate
from tunesmith.api import prepare

CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "centred": {"center_rewards_coefficient": 0.05},
    "margins": {"margins": True},
    "both": {"margins": True, "center_rewards_coefficient": 0.05},
}


def trainer(run: Any, model: Any, folder: Path, **keys: Any) -> Any:
    """TRL's trainer on the tokens and margins of a run's examples."""
    from datasets import Dataset
    from trl import RewardConfig, RewardTrainer

    made = []
    for example in run.data.train:
        chosen, rejected = sequences([example])
        made.append({"chosen_ids": chosen, "rejected_ids": rejected, **example.columns})
    centering = run.config.document.values.get("center_rewards_coefficient")
    options = {
        "output_dir": str(folder), "use_cpu": True, "report_to": "none", "per_device_train_batch_size": NUMBER,
        "center_rewards_coefficient": centering, "max_length": None, "disable_tqdm": True, "bf16": False,
        "gradient_checkpointing": False, "save_strategy": "no", **keys,
    }  # fmt: skip
    return RewardTrainer(model, RewardConfig(**options), train_dataset=Dataset.from_list(made),
                         processing_class=tiny.tokenizer())  # fmt: skip


@pytest.mark.parametrize(
    ("case", "architecture"),
    [*((case, "llama") for case in CASES), *(("both", other) for other in ("qwen3", "gemma3", "gpt_neox"))],
)
def test_loss_and_gradients_are_those_of_trl(case: str, architecture: str, tmp_path: Path) -> None:
    classifier(tmp_path / f"model-{architecture}", architecture)
    run = prepare(tiny.start(config(tmp_path, architecture, **CASES[case])))
    policy = build_policy(run)
    examples = list(run.data.train)
    batch = collate(examples, score_points=True)
    found = run.hooks.compute_loss(run, policy, policy(batch), batch)
    loss = torch.stack([term.sum / len(examples) for term in found.values() if not term.metric]).sum()
    loss.backward()
    ours = {name: p.grad.clone() for name, p in policy.model.named_parameters()}

    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / f"model-{architecture}", num_labels=1)
    theirs = trainer(run, model, tmp_path / "trl")
    inputs = theirs.data_collator(list(theirs.train_dataset))
    wanted = theirs.compute_loss(model.train(), inputs)
    wanted.backward()
    assert loss.item() == pytest.approx(wanted.item(), abs=1e-5)
    scale = max(p.grad.abs().max().item() for p in model.parameters())
    for name, p in model.named_parameters():
        assert (ours[name] - p.grad).abs().max().item() <= 1e-5 * max(scale, 1.0), name
    said = theirs._metrics["train"]
    for name in ("accuracy", "margin", "mean_reward"):
        count = batch.sequences if name == "mean_reward" else batch.examples
        assert found[name].sum.item() / count == pytest.approx(said[name][0], abs=1e-5), name


@pytest.mark.parametrize("case", ["plain", "both"])
def test_several_steps_end_where_those_of_trl_do(case: str, tmp_path: Path) -> None:
    classifier(tmp_path / "model-llama")
    path = config(tmp_path, **CASES[case], learning_rate=1e-3)
    tiny.train(path)
    ours = tiny.metrics(tmp_path / "out")
    run = prepare(tiny.start(path))
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model-llama", num_labels=1)
    options = {"num_train_epochs": 3, "learning_rate": 1e-3, "lr_scheduler_type": "constant", "logging_steps": 1}
    theirs = trainer(run, model, tmp_path / "trl", **options, weight_decay=0.0, max_grad_norm=0.0)
    theirs.train()
    logged = [line for line in theirs.state.log_history if "accuracy" in line]
    assert len(ours) == len(logged) == 3
    for mine, other in zip(ours, logged, strict=True):
        for name in ("loss", "accuracy", "margin", "min_reward", "mean_reward", "max_reward"):
            # TRL rounds its log to four significant digits or places
            assert mine[name] == pytest.approx(other[name], rel=1e-3, abs=1e-4), name
    trained = dict(model.named_parameters())
    for name, value in tiny.weights(tmp_path / "out").items():
        assert (value - trained[name]).abs().max().item() <= 1e-5, name
