"""A kernel reads and trains the complete head on two processes under FSDP2, here with a kernel in plain torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny

PLAIN = """
from tunesmith import Plugin, hookimpl

plugin = Plugin()


def logps(head, hidden, target):
    import torch

    assert head.weight.shape == (320, 32) and type(head.weight) is torch.nn.Parameter
    return (hidden @ head.weight.T).log_softmax(-1).gather(-1, target[:, None])[:, 0]


@hookimpl
def build_scorer(head):
    return lambda hidden, targets, request: {"logps": logps(head.weights(), hidden, targets), "logps_at": {}}


@hookimpl
def on_start(run, policy):
    assert policy.language_model.head() is None and policy.inside(policy.language_model.head)  # shard, unsharded
"""


@pytest.mark.slow
def test_kernel_reads_and_trains_unsharded_weights(tmp_path: Path) -> None:
    (tmp_path / "plain.py").write_text(PLAIN)
    data = tiny.write_rows(tmp_path / "pairs.jsonl", tiny.rows("pair", 8))
    keys: dict[str, Any] = {
        "rl": "dpo", "datasets": [{"path": str(data), "type": "passthrough"}], "optimizer": "adamw_torch",
        "learning_rate": 1e-3, "micro_batch_size": 1, "fsdp_config": {},
    }  # fmt: skip
    paths = []
    for name, more in (("kernel", {"plugins": ["./plain.py"]}), ("chunks", {})):
        path = tiny.sft_config(tmp_path, **keys, **more, output_dir=str(tmp_path / name), max_steps=3)
        paths.append(path.rename(tmp_path / f"{name}.yaml"))
    tiny.torchrun(2, *paths)
    kernel, chunks = (tiny.metrics(tmp_path / name) for name in ("kernel", "chunks"))
    assert [line["loss"] for line in kernel] == pytest.approx([line["loss"] for line in chunks], rel=1e-5)
    weights = [tiny.weights(tmp_path / name)["lm_head.weight"] for name in ("kernel", "chunks")]
    assert torch.allclose(*weights, atol=1e-4)
