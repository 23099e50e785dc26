"""QLoRA on the rows of GSM8K: the loss falls."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests import tiny

DATA = Path(os.environ.get("TUNESMITH_TEST_DATA", "")) / "gsm8k"
pytestmark = pytest.mark.slow
SIZES = {"hidden_size": 128, "intermediate_size": 256, "head_dim": 32, "max_position_embeddings": 2048}
RUNS: dict[str, dict[str, Any]] = {
    "4 bits": {"adapter": "qlora", "learning_rate": 2e-3},
    "8 bits": {"adapter": "lora", "load_in_8bit": True, "learning_rate": 2e-3},
    "dpo": {"adapter": "qlora", "rl": "dpo", "learning_rate": 1e-4},
}


@pytest.mark.skipif(not (DATA / "messages.jsonl").is_file(), reason="needs the data in TUNESMITH_TEST_DATA")
@pytest.mark.parametrize("name", RUNS)
def test_the_loss_falls(name: str, tmp_path: Path) -> None:
    tiny.model_folder(tmp_path / "model-llama", **SIZES)
    path = DATA / ("preference.jsonl" if name == "dpo" else "messages.jsonl")
    keys = RUNS[name] | {"datasets": [{"path": str(path), "type": "chat_template"}], "sequence_len": 1024}
    tiny.train(tiny.sft_config(tmp_path, **keys, max_steps=20))
    losses = [row["loss"] for row in tiny.metrics(tmp_path / "out") if "loss" in row]
    assert sum(losses[-3:]) / 3 < losses[0] - (0.01 if name == "dpo" else 0.5)
