"""A resumed run of two processes, data parallel or sharded, equals an uninterrupted one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests import tiny

CASES: dict[str, dict[str, Any]] = {
    "ddp": {},
    "ddp-lora": {"adapter": "lora", "lora_dropout": 0.1},
    "fsdp": {"fsdp_config": {}},
    "fsdp-lora": {"adapter": "lora", "fsdp_config": {}},
}


@pytest.mark.slow
def test_two_processes_resume_bit_for_bit(tmp_path: Path) -> None:
    """The test compares six steps in one launch with three steps in each of two launches."""
    uninterrupted, first, second = [], [], []
    tiny.model_folder(tmp_path / "model-llama", "llama", attention_dropout=0.1)
    for name, keys in CASES.items():
        steps = {"num_epochs": 9, "save_steps": 3, "resume_from_checkpoint": "auto", "lr_scheduler": "constant"}
        path = tiny.sft_config(tmp_path, **steps, **keys, max_steps=6, warmup_steps=0)
        values = yaml.safe_load(path.read_text())
        for group, folder, steps_done in (
            (uninterrupted, "uninterrupted", 6),
            (first, "parts", 3),
            (second, "parts", 6),
        ):
            config = tmp_path / f"{name}-{folder}-{steps_done}.yaml"
            config.write_text(
                yaml.safe_dump(values | {"max_steps": steps_done, "output_dir": str(tmp_path / name / folder)})
            )
            group.append(config)
    tiny.torchrun(2, *uninterrupted, *first)
    tiny.torchrun(2, *second)
    for name in CASES:
        weights, expected = (tiny.weights(tmp_path / name / folder) for folder in ("parts", "uninterrupted"))
        assert weights.keys() == expected.keys(), name
        assert all(torch.equal(weights[key], expected[key]) for key in weights), name
    assert tiny.weights(tmp_path / "ddp/uninterrupted").keys() == tiny.weights(tmp_path / "fsdp/uninterrupted").keys()
