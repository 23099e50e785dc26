"""Loss and gradient do not depend on the layout of answers, their micro-batches, or the number of processes."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from plugins.kto.tests.test_parity import ABOVE
from tests import method_checks, one_step, rows, tiny

METRICS = ("loss", "kl", "rewards/chosen", "rewards/rejected", "rewards/margins", "logps/chosen", "logps/rejected")


def check_same(ours: Path, theirs: Path) -> None:
    method_checks.check_same(ours, theirs, steps=4, names=METRICS, tolerance=2e-5)
    assert tiny.metrics(ours)[-1]["kl"] > 1e-3


@pytest.mark.parametrize("adapter", [None, "lora"])
@pytest.mark.parametrize("architecture", ["llama", "gemma3", "gpt_neox"])
def test_layouts_and_micro_batches_give_the_same_step(architecture: str, adapter: str | None, tmp_path: Path) -> None:
    path = rows.config(tmp_path, "kto", architecture=architecture, adapter=adapter)
    method_checks.check_layouts(*one_step.started(path, ABOVE))


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path: Path) -> None:
    """Micro-batches of 3, 3 and 1 answers on two processes, with a dummy on one of them; replicated and sharded."""
    ways: dict[str, dict[str, Any]] = {"replicated": {}, "sharded": {"fsdp_config": {}}}
    tiny.train(rows.config(tmp_path, "kto", "one", learning_rate=1e-2))
    split = {"learning_rate": 1e-2, "micro_batch_size": 3, "gradient_accumulation_steps": 2}
    tiny.torchrun(2, *[rows.config(tmp_path, "kto", name, **split, **keys) for name, keys in ways.items()])
    for name in ways:
        check_same(tmp_path / name, tmp_path / "one")


def test_a_step_without_a_label_has_no_metrics_of_that_label(tmp_path: Path) -> None:
    tiny.train(rows.config(tmp_path, "kto", micro_batch_size=1, max_steps=7))
    lines = tiny.metrics(tmp_path / "out")
    for line in lines:
        assert ("rewards/chosen" in line) != ("rewards/rejected" in line) and "rewards/margins" not in line
    assert sum("logps/chosen" in line for line in lines) == 3


def test_evaluation_and_training_have_the_same_metrics(tmp_path: Path) -> None:
    """The same rows are trained on and held out, before and after each update."""
    held_out = [{"path": str(tmp_path / "labelled.jsonl"), "type": "passthrough"}]
    keys: dict[str, Any] = {"test_datasets": held_out, "eval_steps": 1, "eval_batch_size": len(rows.labelled())}
    tiny.train(rows.config(tmp_path, "kto", learning_rate=1e-2, **keys))
    lines = tiny.metrics(tmp_path / "out")
    for before, after in pairwise(lines):
        measured = {k: before[f"eval_{k}"] for k in METRICS}
        assert measured == pytest.approx({k: after[k] for k in METRICS}, rel=1e-5, abs=1e-5)


def test_a_stream_trains_and_resumes(tmp_path: Path) -> None:
    tiny.write_rows(tmp_path / "labelled.jsonl", rows.labelled(60, seed=1))
    keys: dict[str, Any] = {
        "datasets": None,
        "pretraining_dataset": [{"path": str(tmp_path / "labelled.jsonl"), "type": "passthrough"}],
        "streaming_multipack_buffer_size": 10,
        "sample_packing": True,
        "micro_batch_size": 1,
        "num_epochs": None,
        "save_steps": 2,
        "max_steps": 6,
    }
    tiny.train(rows.config(tmp_path, "kto", "complete", **keys))
    tiny.train(rows.config(tmp_path, "kto", "parts", **keys), "max_steps=4")
    tiny.train(rows.config(tmp_path, "kto", "parts", **keys), "resume_from_checkpoint=auto")
    complete, parts = tiny.metrics(tmp_path / "complete"), tiny.metrics(tmp_path / "parts")
    assert max(line["kl"] for line in complete[4:]) > 0.5  # after the step at which the other run resumed
    assert [line["loss"] for line in complete] == [line["loss"] for line in parts]
