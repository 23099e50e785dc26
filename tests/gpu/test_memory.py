"""On a GPU, the memory that `plan` counts is close to the measured peak of a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests import tiny
from tunesmith.api import plan, prepare

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch can use"),
]


@pytest.mark.parametrize("backend", ["auto", "slices"])
def test_planned_memory_is_near_the_measured_peak(backend: str, tmp_path: Path) -> None:
    keys = {"device": "cuda", "attn_implementation": backend, "sequence_len": 512, "max_steps": 3}
    path = tiny.sft_config(tmp_path, number=200, **keys)
    counted = plan(prepare(tiny.start(path)))["memory"]
    tiny.train(path)
    measured = json.loads((tmp_path / "out/run.json").read_text())["peak_memory"]
    assert 0.7 * counted["total"] <= measured <= 1.4 * counted["total"] + 8 * 2**20, (measured, counted)
