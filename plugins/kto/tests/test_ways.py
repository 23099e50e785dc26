"""How answers are laid out, split over micro-batches and dealt to processes changes neither loss nor gradient."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from plugins.kto.tests import made
from plugins.kto.tests.test_parity import ABOVE
from tests import one_step, tiny

METRICS = ("loss", "kl", "rewards/chosen", "rewards/rejected", "rewards/margins", "logps/chosen", "logps/rejected")


def same(ours: Path, theirs: Path) -> None:
    """Loss, gradient norm and metrics of two runs agree, step by step."""
    lines = tiny.metrics(ours)
    assert len(lines) == 4 and all(math.isfinite(line["loss"]) for line in lines) and lines[-1]["kl"] > 1e-3
    for line, other in zip(lines, tiny.metrics(theirs), strict=True):
        assert {k: line[k] for k in METRICS} == pytest.approx({k: other[k] for k in METRICS}, rel=1e-5, abs=2e-5), ours
        assert line["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-4, abs=1e-5), ours


@pytest.mark.parametrize("adapter", [None, "lora"])
@pytest.mark.parametrize("architecture", ["llama", "gemma3", "gpt_neox"])
def test_shared_repeated_packed_alone_and_accumulated_are_one(
    architecture: str, adapter: str | None, tmp_path: Path
) -> None:
    run, policy = one_step.started(made.config(tmp_path, architecture=architecture, adapter=adapter), ABOVE)
    examples = list(run.data.train)
    ways = {
        "repeated": ([examples], False),
        "alone": ([[e] for e in examples], True),
        "accumulated": ([examples[:2], examples[2:5], examples[5:]], True),
    }
    loss, terms = one_step.loss_of(run, policy, [examples])
    gradients = one_step.gradients(policy.model)
    assert max(float(g.abs().max()) for g in gradients.values()) > 1e-4
    for way, (groups, share) in ways.items():
        other, others = one_step.loss_of(run, policy, groups, share)
        assert other == pytest.approx(loss, abs=1e-5), way
        assert others == pytest.approx(terms, rel=1e-5, abs=1e-5), way
        assert one_step.largest_difference(one_step.gradients(policy.model), gradients) < 1e-5, way


def test_packed_rows_train_as_answers_of_their_own_do(tmp_path: Path) -> None:
    tiny.train(made.config(tmp_path, "apart", learning_rate=1e-2))
    tiny.train(made.config(tmp_path, "packed", learning_rate=1e-2, sample_packing=True))
    same(tmp_path / "packed", tmp_path / "apart")


def test_two_processes_are_one(tmp_path: Path) -> None:
    """Micro-batches of 3, 3 and 1 answers on two processes, one of which runs a dummy; replicated and sharded."""
    ways: dict[str, dict[str, Any]] = {"replicated": {}, "sharded": {"fsdp_config": {}}}
    tiny.train(made.config(tmp_path, "one", learning_rate=1e-2))
    split = {"learning_rate": 1e-2, "micro_batch_size": 3, "gradient_accumulation_steps": 2}
    tiny.torchrun(2, *[made.config(tmp_path, name, **split, **keys) for name, keys in ways.items()])
    for name in ways:
        same(tmp_path / name, tmp_path / "one")


def test_a_label_that_a_step_lacks_has_no_metric_in_it(tmp_path: Path) -> None:
    tiny.train(made.config(tmp_path, micro_batch_size=1, max_steps=7))
    lines = tiny.metrics(tmp_path / "out")
    for line in lines:
        assert ("rewards/chosen" in line) != ("rewards/rejected" in line) and "rewards/margins" not in line
    assert sum("logps/chosen" in line for line in lines) == 3


def test_an_evaluation_measures_what_training_does(tmp_path: Path) -> None:
    """The same rows trained on and held out, before the first update and after it."""
    held = [{"path": str(tmp_path / "labelled.jsonl"), "type": "passthrough"}]
    tiny.train(made.config(tmp_path, learning_rate=1e-2, test_datasets=held, eval_steps=1, eval_batch_size=made.NUMBER))
    lines = tiny.metrics(tmp_path / "out")
    for before, after in pairwise(lines):
        measured = {k: before[f"eval_{k}"] for k in METRICS}
        assert measured == pytest.approx({k: after[k] for k in METRICS}, rel=1e-5, abs=1e-5)


def test_a_resumed_run_goes_on_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    keys: dict[str, Any] = {"micro_batch_size": 3, "save_steps": 2}
    whole = tiny.train(made.config(tmp_path, "whole", **keys))
    tiny.train(made.config(tmp_path, "parts", **keys), "max_steps=2")
    resumed = tiny.train(made.config(tmp_path, "parts", **keys), "resume_from_checkpoint=auto")
    assert tiny.metrics(tmp_path / "parts")[-1]["loss"] == tiny.metrics(tmp_path / "whole")[-1]["loss"]
    pairs = zip(whole.policy.model.parameters(), resumed.policy.model.parameters(), strict=True)
    assert all(torch.equal(one, two) for one, two in pairs)


def test_a_stream_trains_and_resumes(tmp_path: Path) -> None:
    tiny.write_rows(tmp_path / "labelled.jsonl", made.rows(60, seed=1))
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
    tiny.train(made.config(tmp_path, "whole", **keys))
    tiny.train(made.config(tmp_path, "parts", **keys), "max_steps=4")
    tiny.train(made.config(tmp_path, "parts", **keys), "resume_from_checkpoint=auto")
    whole, parts = tiny.metrics(tmp_path / "whole"), tiny.metrics(tmp_path / "parts")
    assert max(line["kl"] for line in whole[4:]) > 0.5  # after the point where the other one resumed
    assert [line["loss"] for line in whole] == [line["loss"] for line in parts]
