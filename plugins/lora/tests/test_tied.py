"""An adapter on a model that ties its head to its embeddings can be merged, or is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from tests import tiny
from tunesmith import ConfigError, ModelError, build_policy
from tunesmith.api import prepare


def tied(folder: Path, **keys: Any) -> Path:
    if not (folder / "model-llama").exists():
        tiny.model_folder(folder / "model-llama", tie_word_embeddings=True)
    return tiny.sft_config(folder, **({"adapter": "lora", "learning_rate": 0.1, "number": 8} | keys))


@pytest.mark.parametrize("targets", [["lm_head", "q_proj"], ["embed_tokens"], ".*(embed_tokens|q_proj)"])
def test_an_update_of_one_of_two_tied_modules_is_refused(targets: Any, tmp_path: Path) -> None:
    run = prepare(tiny.start(tied(tmp_path, lora_target_modules=targets)))
    with pytest.raises(ConfigError, match=r"shares its weight with .*, so a merged model would"):
        build_policy(run)


@pytest.mark.parametrize("modules", [["lm_head"], ["embed_tokens"], ["embed_tokens", "lm_head"]])
def test_a_module_that_is_saved_is_untied_noted_and_merges_to_what_was_trained(
    modules: list[str], tmp_path: Path
) -> None:
    policy = tiny.train(tied(tmp_path, lora_modules_to_save=modules)).policy
    assert "is trained with a weight of its own" in policy.run.notes["untied weights"]
    ids = torch.arange(30)[None]
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "model-llama")
    merged = PeftModel.from_pretrained(base, str(tmp_path / "out")).merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    with torch.no_grad(), policy.language_model.attending("sdpa"):
        trained = policy.model.eval()(input_ids=ids).logits
        assert torch.allclose(again(input_ids=ids).logits, trained, atol=1e-3)
        assert not torch.allclose(
            AutoModelForCausalLM.from_pretrained(tmp_path / "model-llama")(input_ids=ids).logits, trained, atol=0.1
        )


@pytest.mark.parametrize("tying", [False, True])
def test_a_saved_adapter_on_a_tied_head_is_a_warning_because_it_merges_wrong(tying: bool, tmp_path: Path) -> None:
    """With ensure_weight_tying, peft merges the update of the shared weight twice."""
    tied(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model-llama")
    targets = ["embed_tokens", "q_proj"] if tying else ["lm_head", "q_proj"]
    config = LoraConfig(target_modules=targets, ensure_weight_tying=tying, task_type="CAUSAL_LM")
    get_peft_model(model, config).save_pretrained(str(tmp_path / "adapter"))
    run = prepare(tiny.start(tied(tmp_path, lora_model_dir=str(tmp_path / "adapter"))))
    build_policy(run)
    assert any("use the adapter without merging it" in str(note) for note in run.notes.values())


def test_a_tied_embedding_is_not_in_the_trained_part_of_a_checkpoint(tmp_path: Path) -> None:
    saved = {"max_steps": 1, "save_steps": 1}
    for keys in (saved, saved | {"adapter": None, "output_dir": str(tmp_path / "full")}):
        policy = tiny.train(tied(tmp_path, **keys)).policy
        trained = {f"module.{name}" for name, p in policy.model.named_parameters() if p.requires_grad}
        file = policy.run.output_dir / "checkpoint-1/trainable.json"
        assert set(json.loads(file.read_text())) == trained


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_adapter_weight_that_is_not_finite_is_named(value: float, tmp_path: Path) -> None:
    tiny.train(tied(tmp_path, max_steps=1))
    path = tmp_path / "out/adapter_model.safetensors"
    tensors = load_file(path)
    name = sorted(tensors)[5]
    tensors[name][0, 0] = value
    save_file(tensors, path)
    run = prepare(tiny.start(tied(tmp_path, lora_model_dir=str(path.parent), output_dir=str(tmp_path / "next"))))
    with pytest.raises(ModelError, match=f"{name} of .* contains numbers that are not finite"):
        build_policy(run)
