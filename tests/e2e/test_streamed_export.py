"""A divided model is written part by part, with the names, shapes and values that save_pretrained writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests import forked, tiny


def saved(folder: Path) -> dict[str, Any]:
    """Return the tensors of all weight files in a folder."""
    return {name: value for path in folder.glob("model*.safetensors") for name, value in load_file(path).items()}


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["llama", "mixtral"])
def test_parts_of_a_divided_model_are_those_of_save_pretrained(
    architecture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The embeddings are tied in one model; transformers merges the experts of the other when it loads them."""
    from transformers import AutoModelForCausalLM
    from tunesmith_hf import streamed

    tiny.model_folder(tmp_path / f"model-{architecture}", architecture, tie_word_embeddings=architecture == "llama")
    monkeypatch.setattr(streamed, "LARGEST", 9_000)
    keys = {"max_steps": 1, "fsdp_config": {}, "output_dir": str(tmp_path / "out")}
    forked.train(2, tmp_path / "output", tiny.sft_config(tmp_path, architecture, **keys))
    files = sorted(path.name for path in (tmp_path / "out").glob("model*.safetensors"))
    assert len(files) > 2
    index = json.loads((tmp_path / "out/model.safetensors.index.json").read_text())
    tensors = saved(tmp_path / "out")
    assert set(index["weight_map"]) == set(tensors) and set(index["weight_map"].values()) == set(files)
    assert index["metadata"]["total_size"] == sum(t.numel() * t.element_size() for t in tensors.values())
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    model.save_pretrained(tmp_path / "again")
    again = saved(tmp_path / "again")
    assert again.keys() == tensors.keys() and all(again[name].equal(tensors[name]) for name in again)
    checkpoint = saved(tmp_path / "out/checkpoint-1")
    assert checkpoint.keys() == tensors.keys() and all(checkpoint[name].equal(tensors[name]) for name in tensors)
