"""Real pairs: a small model learns to tell answers of held-out pairs apart by its implicit reward.

A prompt has about three pairs, so most of those held out have a prompt that was seen, with another rejected answer. On
prompts never seen, nothing so small can tell right sums from wrong ones: counting words reaches 0.56, length 0.59.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from tests import tiny


@pytest.mark.slow
def test_held_out_accuracy_of_the_implicit_reward_rises(test_data: Path, tmp_path: Path) -> None:
    with (test_data / "gsm8k/preference.jsonl").open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line, _ in zip(lines, range(600), strict=False)]
    tokenizer = tiny.tokenizer().train_new_from_iterator([row["chosen"] for row in rows], 1000)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(LlamaConfig(vocab_size=len(tokenizer), **sizes), dtype=torch.float32)
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    path = tiny.write_config(
        tmp_path,
        base_model=str(tmp_path / "model"),
        rl="dpo",
        datasets=[{"path": str(tiny.write_rows(tmp_path / "pairs.jsonl", rows)), "type": "chatml.prompt_pairs"}],
        val_set_size=100,
        sequence_len=1024,
        micro_batch_size=2,
        num_epochs=2,
        eval_steps=500,
        learning_rate=2e-3,
        warmup_steps=5,
    )
    tiny.train(path)
    last = tiny.metrics(tmp_path / "out")[-1]
    assert last["eval_rewards/accuracies"] > 0.6  # 0 before the first step, where all rewards are 0; 0.5 by chance
    assert last["eval_rewards/margins"] > 0 and last["eval_loss"] < 0.693
