"""Entropy and token accuracy equal those of plain logits and do not change training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny
from tunesmith import ConfigError, collate

KEYS = {"log_entropy": True, "log_token_accuracy": True}


def test_the_metrics_equal_those_of_plain_logits(tmp_path: Path) -> None:
    config = tiny.sft_config(tmp_path, number=5, learning_rate=1e-2, num_epochs=20, **KEYS)
    policy = tiny.train(config).policy  # trained until some predictions are correct
    run = policy.run
    policy.model.eval()
    entropies, hits = [], []
    with torch.no_grad():
        for example in run.data.train:
            tokens = torch.tensor(example.path_tokens(1))
            logps = policy.language_model.plain_logits(tokens).log_softmax(-1)[:-1]
            scored = torch.from_numpy(example.segments[1].weights)[1 - len(tokens) :] > 0
            entropies.append(-(logps.exp() * logps).sum(-1)[scored])
            hits.append((logps.argmax(-1) == tokens[1:])[scored])
        batch = collate(list(run.data.train))
        terms = run.hooks.compute_loss(run, policy, policy(batch), batch)
    assert terms["entropy"].sum.item() == pytest.approx(torch.cat(entropies).sum().item(), rel=1e-5)
    assert terms["mean_token_accuracy"].sum == torch.cat(hits).sum() > 0


@pytest.mark.parametrize("rl", [None, "dpo"])
def test_the_metrics_are_logged_and_do_not_change_the_loss(rl: str | None, tmp_path: Path) -> None:
    data: dict[str, Any] = {}
    if rl:
        pairs = [{"prompt": f"{n} and", "chosen": "one two three", "rejected": "four"} for n in range(8)]
        data = {"datasets": [{"path": str(tiny.write_rows(tmp_path / "p.jsonl", pairs)), "type": "passthrough"}]}
    keys = {"rl": rl, "max_steps": 2, "val_set_size": 2, **data}
    tiny.train(tiny.sft_config(tmp_path, output_dir=str(tmp_path / "with"), **keys, **KEYS))
    tiny.train(tiny.sft_config(tmp_path, output_dir=str(tmp_path / "without"), **keys))
    for line, other in zip(tiny.metrics(tmp_path / "with"), tiny.metrics(tmp_path / "without"), strict=True):
        assert line["loss"] == other["loss"] and 0 < line["entropy"] < 6 and 0 <= line["mean_token_accuracy"] <= 1
    assert {"eval_entropy", "eval_mean_token_accuracy"} <= tiny.metrics(tmp_path / "with")[-1].keys()


def test_a_model_with_a_score_head_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="log_entropy has no effect: a model with a score head does not predict tokens"
    ):
        tiny.start(tiny.sft_config(tmp_path, reward_model=True, **KEYS))
