"""Two processes train fused experts, LoRA+ and an initialization that changes the base as one process does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny

STEPS: dict[str, Any] = {
    "adapter": "lora", "lora_r": 4, "max_steps": 2, "micro_batch_size": 1, "sample_packing": False,
    "learning_rate": 1e-3, "adam_epsilon": 1e-4, "warmup_steps": 0,
}  # fmt: skip
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "pissa": ("llama", {"peft_init_lora_weights": "pissa"}),
    "corda": ("llama", {"peft_init_lora_weights": "corda"}),
    "eva": ("llama", {"peft_init_lora_weights": "eva"}),
    "plus": ("llama", {"loraplus_lr_ratio": 8}),
    "experts": ("mixtral", {"lora_target_parameters": ["experts.gate_up_proj"], "lora_target_modules": ["q_proj"]}),
}


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path: Path) -> None:
    def config(name: str, way: str, **keys: Any) -> Path:
        architecture, own = CASES[name]
        output = f"{way}-{name}"
        values = {**STEPS, **own, "output_dir": str(tmp_path / output), "name": f"{output}.yaml"}
        return tiny.sft_config(tmp_path, architecture, **{**values, **keys})

    configs = [config(name, "ddp") for name in CASES]
    configs += [config(name, "fsdp", fsdp_config={}) for name in CASES if name != "experts"]
    tiny.torchrun(2, *configs)
    for name in CASES:
        tiny.train(config(name, "one", gradient_accumulation_steps=2))
        expected = tiny.weights(tmp_path / f"one-{name}")
        for way in ("ddp", *(["fsdp"] if name != "experts" else [])):
            trained = tiny.weights(tmp_path / f"{way}-{name}")
            assert trained.keys() == expected.keys()
            for key, value in expected.items():
                assert torch.allclose(trained[key], value, atol=2e-5), f"{way} {name}: {key}"
