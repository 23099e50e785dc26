"""On two GPUs, layouts of processes train as one GPU does, and a divided pack takes less memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="torch sees fewer than two GPUs"),
]
MODEL = {"hidden_size": 256, "head_dim": 64, "intermediate_size": 512}
LAYOUTS: dict[str, dict[str, Any]] = {
    "ddp": {},
    "fsdp": {"fsdp_config": {}},
    "context": {"context_parallel_size": 2},
    "sharded-context": {"context_parallel_size": 2, "fsdp_config": {}},
}


def write(folder: Path, name: str, packs: int, **keys: Any) -> Path:
    """Write the config of a run with four packs in a step, of which each process has `packs`."""
    values = {
        "device": "cuda", "bf16": True, "max_steps": 4, "num_epochs": 9, "lr_scheduler": "constant",
        "warmup_steps": 0, "gradient_accumulation_steps": packs, "output_dir": str(folder / name), **keys,
    }  # fmt: skip
    return tiny.sft_config(folder, **values).rename(folder / f"{name}.yaml")


@pytest.mark.parametrize("backend", ["auto", "flex"])
def test_two_gpus_train_as_one(backend: str, tmp_path: Path) -> None:
    tiny.model_folder(tmp_path / "model-llama", "llama", **MODEL)
    keys = {"attn_implementation": backend}
    tiny.torchrun(1, write(tmp_path, "one", 4, **keys))
    divided = {name: 4 if "context" in name else 2 for name in LAYOUTS}
    tiny.torchrun(2, *(write(tmp_path, name, divided[name], **LAYOUTS[name], **keys) for name in LAYOUTS))
    expected = [line["loss"] for line in tiny.metrics(tmp_path / "one")]
    for name in LAYOUTS:
        assert [line["loss"] for line in tiny.metrics(tmp_path / name)] == pytest.approx(expected, rel=2e-2), name
