"""KTO on rows of GSM8K learns to distinguish good from bad answers to held-out prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tunesmith_kto.step import prepare as prepare_step

from tests import rows, tiny
from tunesmith import Policy, Run, collate


def rewards(run: Run, policy: Policy) -> tuple[torch.Tensor, torch.Tensor]:
    """Return log-ratio and label of each held-out answer."""
    ratios, labels = [], []
    policy.model.eval()
    with torch.no_grad():
        for example in run.data.eval:
            batch = collate([example])
            prepare_step(run, policy, [batch])
            ratios.append(batch.sum_by_sequence(policy(batch).logps - batch.columns["ref_logps"])[0])
            labels.append(batch.columns["label"][0] > 0)
    return torch.stack(ratios), torch.stack(labels)


def accuracy(ratios: torch.Tensor, labels: torch.Tensor) -> float:
    """Return the probability that a good answer has a higher reward than a bad one."""
    difference = ratios[labels][:, None] - ratios[~labels][None]
    return float((difference > 0).float().mean() + 0.5 * (difference == 0).float().mean())


@pytest.mark.slow
def test_rewards_of_held_out_answers_follow_their_labels(test_data: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    records = rows.real(test_data, "kto.jsonl")
    parts = {"train": records[:400], "held": records[-600:-200]}  # the four answers to a prompt are neighbors
    for name, part in parts.items():
        tiny.write_rows(tmp_path / f"{name}.jsonl", part)
    prompts = [{row["prompt"] for row in part} for part in parts.values()]
    assert not prompts[0] & prompts[1]
    tokenizer = AutoTokenizer.from_pretrained(test_data / "tokenizer-gpt2-chatml")
    form: dict[str, Any] = {"type": "passthrough", "prompt_format": "{prompt}\n"}
    path = tiny.write_config(
        tmp_path, base_model=str(rows.small_model(tmp_path / "small", tokenizer)), rl="kto", sequence_len=1024,
        micro_batch_size=8, num_epochs=1, learning_rate=1e-3, kto_desirable_weight=1.8,
        datasets=[{"path": str(tmp_path / "train.jsonl"), **form}],
        test_datasets=[{"path": str(tmp_path / "held.jsonl"), **form}],
    )  # fmt: skip
    result = tiny.train(path)
    after = accuracy(*rewards(result.policy.run, result.policy))
    last = next(line for line in reversed(tiny.metrics(tmp_path / "out")) if "eval_loss" in line)
    print(f"{after:.3f}, {last}")
    assert (
        after > 0.55 and last["eval_rewards/margins"] > 0
    )  # without training, all rewards are 0: an accuracy of one half, and a margin of 0
