"""Intervals below 1 are shares of all steps."""

from __future__ import annotations

from pathlib import Path

from tests import tiny


def test_checkpoints_and_evaluations_at_shares_of_all_steps(tmp_path: Path) -> None:
    path = tiny.sft_config(tmp_path, max_steps=8, num_epochs=9, save_steps=0.25, eval_steps=0.4, val_set_size=4,
                           save_total_limit=None)  # fmt: skip
    tiny.train(path)
    assert sorted(p.name for p in (tmp_path / "out").glob("checkpoint-*")) == [f"checkpoint-{n}" for n in (2, 4, 6, 8)]
    evaluated = [line["step"] for line in tiny.metrics(tmp_path / "out") if "eval_loss" in line]
    assert evaluated == [4, 8]  # 0.4 * 8 = 3.2, rounded up
