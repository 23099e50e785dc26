"""However the pairs of a step are laid out, split or dealt to processes, ORPO learns the same: float32, to 1e-5."""

from __future__ import annotations

from pathlib import Path

import pytest

from plugins.orpo.tests import pairs
from tests import tiny


@pytest.mark.parametrize("adapter", [None, "lora"])
@pytest.mark.parametrize("architecture", pairs.ARCHITECTURES)
def test_shared_repeated_unpacked_and_accumulated_are_one(
    architecture: str, adapter: str | None, tmp_path: Path
) -> None:
    pairs.check_layouts(pairs.config(tmp_path, "orpo", architecture=architecture, adapter=adapter))


def test_two_processes_packed_and_uneven_are_one(tmp_path: Path) -> None:
    pairs.check_processes(tmp_path, {"orpo": {}})


def test_an_evaluation_in_uneven_batches_measures_what_training_does(tmp_path: Path) -> None:
    path = pairs.config(tmp_path, "orpo", max_steps=1, learning_rate=1e-30, eval_batch_size=4, test_datasets=[
        {"path": str(tmp_path / "pairs.jsonl"), "type": "passthrough"}
    ])  # fmt: skip
    tiny.train(path)
    (line,) = tiny.metrics(tmp_path / "out")
    measured = {k.removeprefix("eval_"): v for k, v in line.items() if k.startswith("eval_")}
    assert {"loss", "nll_loss", "odds_ratio_loss", "rewards/accuracies", "log_odds_ratio"} <= measured.keys()
    assert {k: line[k] for k in measured} == pytest.approx(measured, abs=1e-5)
