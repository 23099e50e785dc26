"""ORPO learns the same, to 1e-5 in float32, for any layout of pairs, micro-batches and number of processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import method_checks, one_step, rows, tiny


@pytest.mark.parametrize("adapter", [None, "lora"])
@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gemma3", "gpt_neox"])
def test_layouts_and_micro_batches_give_the_same_step(architecture: str, adapter: str | None, tmp_path: Path) -> None:
    path = rows.config(tmp_path, "orpo", architecture=architecture, adapter=adapter)
    method_checks.check_layouts(*one_step.started(path))


def test_evaluation_in_uneven_batches_equals_training(tmp_path: Path) -> None:
    path = rows.config(tmp_path, "orpo", max_steps=1, learning_rate=1e-30, eval_batch_size=4, test_datasets=[
        {"path": str(tmp_path / "pairs.jsonl"), "type": "passthrough"}
    ])  # fmt: skip
    tiny.train(path)
    (line,) = tiny.metrics(tmp_path / "out")
    measured = {k.removeprefix("eval_"): v for k, v in line.items() if k.startswith("eval_")}
    assert {"loss", "nll_loss", "odds_ratio_loss", "rewards/accuracies", "log_odds_ratio"} <= measured.keys()
    assert {k: line[k] for k in measured} == pytest.approx(measured, abs=1e-5)
