"""The implicit reward of a small model learns to distinguish the answers of held-out real pairs.

A prompt has about three pairs, so most held-out pairs have a prompt of the training data with another rejected answer.
On new prompts, a model of this size cannot distinguish right sums from wrong ones: counting words reaches an accuracy
of 0.56, and length 0.59.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import rows, tiny


@pytest.mark.slow
def test_held_out_accuracy_of_the_implicit_reward_rises(test_data: Path, tmp_path: Path) -> None:
    pairs = rows.real(test_data, "preference.jsonl", 600)
    tokenizer = tiny.tokenizer().train_new_from_iterator([row["chosen"] for row in pairs], 1000)
    path = tiny.write_config(
        tmp_path,
        base_model=str(rows.small_model(tmp_path / "model", tokenizer)),
        rl="dpo",
        datasets=[{"path": str(tiny.write_rows(tmp_path / "pairs.jsonl", pairs)), "type": "chatml.prompt_pairs"}],
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
    assert last["eval_rewards/accuracies"] > 0.6  # 0 before the first step, when all rewards are 0; 0.5 by chance
    assert last["eval_rewards/margins"] > 0 and last["eval_loss"] < 0.693
