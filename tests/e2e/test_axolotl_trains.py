"""Configs of Axolotl train as they are, on tiny models and local rows: only the names and sizes of these differ."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tests import tiny
from tunesmith.config.load import load_config

pytestmark = pytest.mark.slow
SHRUNK: dict[str, Any] = {
    "sequence_len": 1024, "micro_batch_size": 2, "gradient_accumulation_steps": 1, "num_epochs": 1, "max_steps": 2,
    "evals_per_epoch": 1, "chat_template": None, "special_tokens": None, "model_type": None, "tokenizer_type": None,
    "dataset_prepared_path": None, "device": "cpu", "bf16": False,
}  # fmt: skip
"""Keys that depend on the size of the model, or on its tokenizer."""


class Case(NamedTuple):
    """A config, the rows to train on, the type of the rows, and further keys."""

    file: str
    rows: str
    type: str
    keys: dict[str, Any] = {}


MESSAGES = {"field_messages": "messages"}
CASES = {
    "full": Case("phi__phi-ft.yml", "alpaca", "alpaca"),
    "LoRA": Case("qwen3__8b-lora-fused-attn.yaml", "alpaca", "alpaca"),
    "QLoRA": Case("llama-3__qlora-1b.yml", "alpaca", "alpaca"),
    "LoRA on 8 bits": Case("llama-3__lora-8b.yml", "alpaca", "alpaca"),
    "packing": Case("llama-3__lora-1b-kernels.yml", "alpaca", "alpaca"),
    "DPO": Case("llama-3__instruct-dpo-lora-8b.yml", "preference_chat", "chat_template.argilla_chat"),
    "KTO": Case("llama-3__instruct-dpo-lora-8b.yml", "kto", "chat_template", {"rl": "kto"}),
    "reward": Case("gemma2__reward-model.yaml", "preference", "bradley_terry.chat_template"),
    "pretraining": Case("archived__tiny-llama__pretrain.yml", "text", "pretrain"),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.model_folder(
        tmp_path_factory.mktemp("models") / "tiny", hidden_size=64, intermediate_size=128, max_position_embeddings=2048
    )


def shrunk(case: Case, folder: Path, base: Path) -> Path:
    """Write the config of a case for a tiny model and local rows."""
    data = os.environ.get("TUNESMITH_TEST_DATA")
    if not data:
        pytest.skip("TUNESMITH_TEST_DATA is not set: no configs of Axolotl")
    values = yaml.safe_load(Path(data, "axolotl-yaml", case.file).read_text("utf-8"))
    name = "text/shakespeare" if case.rows == "text" else f"gsm8k/{case.rows}"
    file = Path(data, f"{name}.jsonl")
    if case.type.startswith("bradley_terry"):  # these rows have another name for the prompt
        file = folder / "rows.jsonl"
        file.write_text(Path(data, f"{name}.jsonl").read_text("utf-8").replace('"prompt":', '"input":'), "utf-8")
    entry = {"path": str(file), "type": case.type}
    group = "pretraining_dataset" if case.type == "pretrain" else "datasets"
    values |= {"base_model": str(base), "output_dir": str(folder / "out"), **SHRUNK, group: [entry], **case.keys}
    if values.get("val_set_size"):
        values["val_set_size"] = 4
    path = folder / case.file
    path.write_text(yaml.safe_dump({key: value for key, value in values.items() if value is not None}), "utf-8")
    return path


@pytest.mark.parametrize("name", CASES)
def test_config_of_axolotl_trains(name: str, base: Path, tmp_path: Path) -> None:
    path = shrunk(CASES[name], tmp_path, base)
    assert load_config(path).translated
    result = tiny.train(path)
    assert [line["step"] for line in tiny.metrics(tmp_path / "out") if "loss" in line] == [1, 2]
    assert result.metrics["loss"] > 0 and list((tmp_path / "out").glob("*.safetensors"))


def test_config_of_axolotl_with_fsdp_trains_on_two_processes(base: Path, tmp_path: Path) -> None:
    path = shrunk(Case("llama-3__fft-8b-liger-fsdp.yaml", "messages", "chat_template"), tmp_path, base)
    config = load_config(path)
    assert config.core.fsdp_config and config.core.fsdp_config.offload_params
    tiny.torchrun(2, path)
    assert list((tmp_path / "out").glob("*.safetensors"))
