"""After training on real solutions, right and wrong steps are distinguished in held-out solutions."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import rows


@pytest.mark.slow
def test_held_out_accuracy_rises_above_the_share_of_the_frequent_label(test_data: Path, tmp_path: Path) -> None:
    solutions = rows.real(test_data, "stepwise.jsonl")
    train, held_out = solutions[:2100], solutions[-500:]  # from both ends of the file: no question in common
    before, after = rows.before_and_after(
        tmp_path, test_data, train, held_out, process_reward_model=True, type="stepwise_supervised"
    )
    labels = [label for row in held_out for label in row["labels"]]
    share = max(sum(labels), len(labels) - sum(labels)) / len(labels)
    assert after["eval_accuracy"] > max(before["eval_accuracy"], share) + 0.02
    assert after["eval_loss"] < before["eval_loss"]
