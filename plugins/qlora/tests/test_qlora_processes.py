"""A quantized base on two processes: the same losses as on one, sharded bits, and a resume bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests import tiny

pytestmark = pytest.mark.slow
STEPS = {"num_epochs": 9, "lr_scheduler": "constant", "warmup_steps": 0, "save_steps": 2, "max_steps": 4}
QLORA = {"adapter": "qlora", "lora_r": 4}
SHARDED = {"fsdp_config": {}, "resume_from_checkpoint": "auto"}


def write(folder: Path, name: str, **keys: Any) -> Path:
    """Write the config of a run whose folder is `name`."""
    values = STEPS | {"micro_batch_size": 1, "output_dir": str(folder / name)} | QLORA | keys
    path = tiny.sft_config(folder, **values)
    return path.rename(folder / f"{name}-{values['max_steps']}.yaml")


def losses(folder: Path) -> list[tuple[float, float]]:
    return [(line["loss"], line["grad_norm"]) for line in tiny.metrics(folder)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train on one process, and on two with DDP and FSDP2, complete and in two parts."""
    folder = tmp_path_factory.mktemp("processes")
    half, double = {"bf16": True}, {"gradient_accumulation_steps": 2}
    tiny.train(write(folder, "one", **double))
    tiny.train(write(folder, "half", **double, **half))
    tiny.torchrun(
        2, write(folder, "ddp"), write(folder, "ddp8", adapter="lora", load_in_8bit=True),
        write(folder, "fsdp", **SHARDED), write(folder, "fsdp-half", **SHARDED, **half),
        write(folder, "parts", **SHARDED, max_steps=2),
    )  # fmt: skip
    tiny.torchrun(2, write(folder, "parts", **SHARDED))
    return folder


@pytest.mark.parametrize(("run", "one"), [("ddp", "one"), ("fsdp", "one"), ("fsdp-half", "half")])
def test_the_losses_are_those_of_one_process(run: str, one: str, folder: Path) -> None:
    tolerance = 0.02 if one == "half" else 1e-4
    for numbers, expected in zip(losses(folder / run), losses(folder / one), strict=True):
        assert numbers == pytest.approx(expected, rel=tolerance)


def test_a_resumed_sharded_run_is_the_same_bit_for_bit(folder: Path) -> None:
    assert losses(folder / "parts") == losses(folder / "fsdp")
    tiny.assert_same_weights(folder / "parts", folder / "fsdp")


def test_ddp_trains_on_8_bits(folder: Path) -> None:
    values = [loss for loss, _ in losses(folder / "ddp8")]
    assert values[-1] < values[0]
