"""An optimizer without state, such as SGD without momentum, resumes bit for bit."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from tests import tiny
from tests.contract.fakes import local_plugin

SGD = """
import torch

plugin = Plugin()


@hookimpl
def build_optimizer(run, model):
    trained = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.SGD(trained, lr=run.core.learning_rate, momentum=MOMENTUM)
"""


@pytest.mark.parametrize("momentum", ["0.0", "0.9"])
def test_sgd_resumes_bit_for_bit(momentum: str, tmp_path: Path) -> None:
    local_plugin(tmp_path, "sgd", SGD.replace("MOMENTUM", momentum))
    path = tiny.sft_config(tmp_path, plugins=["./sgd.py"], save_steps=1, max_steps=3, number=8, micro_batch_size=1)
    tiny.train(path)
    straight = tiny.weights(tmp_path / "out")
    for step in (2, 3):
        shutil.rmtree(tmp_path / f"out/checkpoint-{step}", ignore_errors=True)
    (tmp_path / "out/model.safetensors").unlink()
    resumed = tiny.train(path, "resume_from_checkpoint=auto")
    assert resumed.policy.run.notes["resumed from"] == "checkpoint-1"
    assert all(torch.equal(value, straight[name]) for name, value in tiny.weights(tmp_path / "out").items())
