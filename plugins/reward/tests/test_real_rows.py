"""After training on real pairs, the better answer has the higher reward in held-out pairs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import rows


@pytest.mark.slow
def test_held_out_accuracy_rises(test_data: Path, tmp_path: Path) -> None:
    pairs = rows.real(test_data, "preference.jsonl")
    train, held_out = pairs[:1500], pairs[-500:]  # from both ends of the file, so they have no question in common
    before, after = rows.before_and_after(tmp_path, test_data, train, held_out, reward_model=True, type="passthrough")
    assert after["eval_accuracy"] > max(before["eval_accuracy"], 0.5) + 0.08
    assert after["eval_loss"] < before["eval_loss"] and after["eval_margin"] > before["eval_margin"]
