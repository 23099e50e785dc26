"""Models for the tests: one that never ends by itself, one without a chat template, and an adapter."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import tiny


@pytest.fixture(scope="session")
def talker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of a chat model that never draws an end token, so that answers have the longest length."""
    from safetensors.torch import load_file, save_file

    folder = tiny.model_folder(tmp_path_factory.mktemp("models") / "talker")
    tensors = load_file(folder / "model.safetensors")
    # The hidden states have no bias, so a row of zeros has the logit 0: below the largest of 320 random ones.
    for token in tiny.tokenizer().all_special_ids:
        tensors["lm_head.weight"][token] = 0.0
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="session")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of a model without a chat template."""
    folder = tiny.model_folder(tmp_path_factory.mktemp("models") / "writer")
    (folder / "chat_template.jinja").unlink()
    return folder


@pytest.fixture(scope="session")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the output_dir of a run that trained a LoRA adapter."""
    folder = tmp_path_factory.mktemp("adapted")
    tiny.train(tiny.sft_config(folder, adapter="lora", lora_r=4, learning_rate=0.1, plugins=["-report"]))
    return folder / "out"


@pytest.fixture(autouse=True)
def no_colors(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("NO_COLOR", "1")
    yield
