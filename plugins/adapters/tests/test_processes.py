"""Two processes train an adapter of each type as one does: replicated, and sharded where the type allows it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tunesmith_adapters.settings import TYPES

from tests import tiny

NAMES = [name for name, facts in TYPES.items() if "needs" not in facts]
STEPS: dict[str, Any] = {
    "max_steps": 2, "micro_batch_size": 1, "sample_packing": False, "optimizer": "adamw_torch", "learning_rate": 1e-3,
    "adam_epsilon": 1e-4, "warmup_steps": 0,
}  # fmt: skip
"""A large epsilon: where a gradient is nearly 0, its sign, and so the update, would depend on rounding."""


def config(folder: Path, output: str, name: str, shapes: dict[str, Any], **keys: Any) -> Path:
    options = {name: shapes[name]} if name in shapes else {}
    values = {**STEPS, "adapter": name, "output_dir": str(folder / output), "name": f"{output}.yaml"}
    return tiny.sft_config(folder, **{**values, **options, **keys})


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, shapes: dict[str, Any]) -> Path:
    """Train every type in one launch of two processes, and each alone in this process."""
    folder = tmp_path_factory.mktemp("processes")
    configs = [config(folder, f"ddp-{name}", name, shapes) for name in NAMES]
    sharded = [name for name in NAMES if TYPES[name]["shards"]]
    configs += [config(folder, f"fsdp-{name}", name, shapes, fsdp_config={}) for name in sharded]
    for number in range(0, len(configs), 16):
        tiny.torchrun(2, *configs[number : number + 16])
    for name in NAMES:
        tiny.train(config(folder, f"one-{name}", name, shapes, gradient_accumulation_steps=2))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_two_processes_train_as_one(name: str, folder: Path) -> None:
    expected = tensors(folder / f"one-{name}")
    for way in ("ddp", *(["fsdp"] if TYPES[name]["shards"] else [])):
        trained = tensors(folder / f"{way}-{name}")
        assert trained.keys() == expected.keys()
        for key, value in expected.items() if name != "pvera" else ():  # draws its update on each process
            assert torch.allclose(trained[key].float(), value.float(), atol=2e-5), f"{way}: {key}"
