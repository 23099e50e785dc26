"""A merged model equals peft's merge, for every option of LoRA and other types of adapters that merge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import BOFTConfig, FourierFTConfig, HRAConfig, IA3Config, LoHaConfig, LoKrConfig, LoraConfig, OFTConfig
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification
from tunesmith_merge import merge

from plugins.merge.tests.adapters import assert_same, load, logits, unmerged, write_adapter
from tests.tiny import model_folder, tokenizer

LINEAR = ["q_proj", "v_proj", "down_proj"]


def lora(**options: Any) -> LoraConfig:
    return LoraConfig(**({"r": 4, "lora_alpha": 16, "target_modules": LINEAR, "task_type": "CAUSAL_LM"} | options))


CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "plain": (lora(), {}),
    "all-linear": (lora(target_modules="all-linear"), {}),
    "patterns": (lora(rank_pattern={"q_proj": 2}, alpha_pattern={"layers.1.mlp.down_proj": 3}), {}),
    "excluded": (lora(exclude_modules=["layers.0.self_attn.q_proj"]), {}),
    "beside biases": (lora(), {"attention_bias": True, "mlp_bias": True}),
    "rslora": (lora(use_rslora=True), {}),
    "dora": (lora(use_dora=True), {}),
    "bias": (lora(lora_bias=True), {"attention_bias": True, "mlp_bias": True}),
    "base biases": (lora(bias="all"), {"attention_bias": True, "mlp_bias": True}),
    "embedding": (lora(target_modules=["embed_tokens", "q_proj"]), {}),
    "embedding dora": (lora(target_modules=["embed_tokens", "q_proj"], use_dora=True), {}),
    "head": (lora(target_modules=["lm_head", "q_proj"]), {}),
    "modules to save": (lora(modules_to_save=["lm_head", "embed_tokens"]), {}),
    "norm to save": (lora(modules_to_save=["input_layernorm"]), {}),
    "rows": (lora(trainable_token_indices={"embed_tokens": [4, 5, 7]}), {}),
    "rows of both": (lora(trainable_token_indices={"embed_tokens": [4, 5], "lm_head": [4, 5]}), {}),
    "tied": (lora(), {"tie_word_embeddings": True}),
    "rows of tied": (lora(trainable_token_indices=[4, 5, 7]), {"tie_word_embeddings": True}),
    "untied by modules to save": (lora(modules_to_save=["lm_head"]), {"tie_word_embeddings": True}),
    "ia3": (IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]), {}),
    "loha": (LoHaConfig(r=4, target_modules=LINEAR), {}),
    "lokr": (LoKrConfig(r=4, target_modules=LINEAR), {}),
    "oft": (OFTConfig(oft_block_size=4, target_modules=LINEAR), {}),
    "boft": (BOFTConfig(boft_block_size=4, target_modules=LINEAR), {}),
    "fourierft": (FourierFTConfig(n_frequency=50, scaling=100.0, target_modules=LINEAR), {}),
    "hra": (HRAConfig(r=4, target_modules=LINEAR), {}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_merged_model_equals_that_of_peft_and_the_unmerged_one(tmp_path: Path, case: str) -> None:
    config, changes = CASES[case]
    base = model_folder(tmp_path / "base", **({"tie_word_embeddings": False} | changes))
    adapter = write_adapter(base, tmp_path / "adapter", config)
    done = merge(adapter, tmp_path / "merged", base=str(base))
    assert done.tied == ("untied" not in case)
    model = assert_same(done.folder, base, adapter)
    tied = model.lm_head.weight is model.model.embed_tokens.weight
    assert tied == (changes.get("tie_word_embeddings", False) and done.tied)
    assert done.largest is not None and done.largest.value < 1e-5
    assert len(done.differences) == 5  # embeddings, two layers, norm, head


@pytest.mark.parametrize("module", ["embed_tokens", "lm_head"])
def test_an_update_of_one_of_two_tied_modules_unties_them(tmp_path: Path, module: str) -> None:
    """peft's own merge would apply the update to both."""
    base = model_folder(tmp_path / "base", tie_word_embeddings=True)
    adapter = write_adapter(base, tmp_path / "adapter", lora(target_modules=[module, "q_proj"]))
    done = merge(adapter, tmp_path / "merged", base=str(base))
    assert not done.tied
    assert json.loads((done.folder / "config.json").read_text())["tie_word_embeddings"] is False
    assert_same(done.folder, base, adapter, weights=False)


def test_an_update_of_two_tied_modules_keeps_them_tied(tmp_path: Path) -> None:
    """peft's own merge would apply the update twice."""
    base = model_folder(tmp_path / "base", tie_word_embeddings=True)
    config = lora(target_modules=["embed_tokens", "q_proj"], ensure_weight_tying=True)
    adapter = write_adapter(base, tmp_path / "adapter", config)
    done = merge(adapter, tmp_path / "merged", base=str(base))
    assert done.tied
    model = assert_same(done.folder, base, adapter, weights=False)
    assert model.lm_head.weight is model.model.embed_tokens.weight


@pytest.mark.parametrize("architecture", ["gpt_neox", "gemma3", "lfm2"])
def test_other_architectures(tmp_path: Path, architecture: str) -> None:
    base = model_folder(tmp_path / "base", architecture)
    targets = {"gpt_neox": ["query_key_value"], "lfm2": ["in_proj", "w1"]}.get(architecture, LINEAR)
    adapter = write_adapter(base, tmp_path / "adapter", lora(target_modules=targets))
    assert_same(merge(adapter, tmp_path / "merged", base=str(base)).folder, base, adapter)


def test_weights_of_gpt2_that_are_stored_transposed(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config(vocab_size=320, n_embd=32, n_layer=2, n_head=4)).save_pretrained(tmp_path / "base")
    config = lora(target_modules=["c_attn", "c_fc"], fan_in_fan_out=True)
    adapter = write_adapter(tmp_path / "base", tmp_path / "adapter", config)
    assert_same(merge(adapter, tmp_path / "merged", base=str(tmp_path / "base")).folder, tmp_path / "base", adapter)


@pytest.mark.parametrize("parameters", [["gate_up_proj"], ["down_proj"], ["gate_up_proj", "down_proj"]])
def test_fused_experts_are_written_as_the_base_model_stores_them(tmp_path: Path, parameters: list[str]) -> None:
    base = model_folder(tmp_path / "base", "mixtral")
    targets = [f"mlp.experts.{name}" for name in parameters]
    config = lora(target_modules=["q_proj"], target_parameters=targets)
    adapter = write_adapter(base, tmp_path / "adapter", config)
    done = merge(adapter, tmp_path / "merged", base=str(base))
    assert_same(done.folder, base, adapter)
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (done.folder, base))
    assert ours.keys() == theirs.keys()
    assert any("experts.3" in name for name in ours)


def test_several_shards_keep_their_names_and_contents(tmp_path: Path) -> None:
    base = model_folder(tmp_path / "base")
    load(base).save_pretrained(base, max_shard_size="60KB")
    (base / "model.safetensors").unlink()
    adapter = write_adapter(base, tmp_path / "adapter", lora(modules_to_save=["lm_head"]))
    done = merge(adapter, tmp_path / "merged", base=str(base))
    assert_same(done.folder, base, adapter)
    ours, theirs = (
        json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
        for folder in (done.folder, base)
    )
    assert len(set(theirs.values())) > 2
    assert ours == theirs


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("rows", [True, False])
def test_new_tokens_grow_the_embeddings(tmp_path: Path, tied: bool, rows: bool) -> None:
    base = model_folder(tmp_path / "base", tie_word_embeddings=tied)
    new = [320, 321, 322]
    ends = ["embed_tokens"] if tied else ["embed_tokens", "lm_head"]
    options = {"trainable_token_indices": dict.fromkeys(ends, new)} if rows else {"modules_to_save": ends}

    class Grown:
        @staticmethod
        def from_pretrained(folder: Path, **options: Any) -> Any:
            return load(folder, rows=323)

    adapter = write_adapter(base, tmp_path / "adapter", lora(**options), auto=Grown)
    words = tokenizer().__class__.from_pretrained(base)
    words.add_tokens(["<a>", "<b>", "<c>"])
    words.save_pretrained(adapter)
    done = merge(adapter, tmp_path / "merged", base=str(base))
    assert json.loads((done.folder / "config.json").read_text())["vocab_size"] == 323
    if tied and not rows:  # the head keeps the rows of the base model, whose new rows peft leaves to chance
        assert not done.tied
        return
    assert done.tied
    expected = logits(unmerged(base, adapter, auto=Grown))
    torch.testing.assert_close(logits(load(done.folder)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["Qwen3Moe", "GptOss", "Olmoe"])
def test_other_fused_experts(tmp_path: Path, kind: str) -> None:
    import transformers

    torch.manual_seed(0)
    sizes = {
        "vocab_size": 320, "hidden_size": 32, "intermediate_size": 32, "moe_intermediate_size": 32,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
        "num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "pad_token_id": 0,
    }  # fmt: skip
    config = getattr(transformers, f"{kind}Config")(**sizes)
    getattr(transformers, f"{kind}ForCausalLM")(config).save_pretrained(tmp_path / "base")
    options = lora(target_modules=["q_proj"], target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj"])
    adapter = write_adapter(tmp_path / "base", tmp_path / "adapter", options)
    done = merge(adapter, tmp_path / "merged", base=str(tmp_path / "base"))
    assert_same(done.folder, tmp_path / "base", adapter)


def test_a_base_model_whose_files_have_names_without_the_prefix(tmp_path: Path) -> None:
    base = model_folder(tmp_path / "base", tie_word_embeddings=True)
    adapter = write_adapter(base, tmp_path / "adapter", lora())
    load(base).model.save_pretrained(base)  # names begin with layers, not with model.layers
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"architectures": ["LlamaForCausalLM"]}))
    assert "layers.0.mlp.up_proj.weight" in load_file(base / "model.safetensors")
    assert_same(merge(adapter, tmp_path / "merged", base=str(base)).folder, base, adapter)


@pytest.mark.parametrize("equal", [True, False])
def test_tied_weights_that_the_files_have_twice(tmp_path: Path, equal: bool) -> None:
    """transformers ties them if they are equal, and not if they differ."""
    base = model_folder(tmp_path / "base", tie_word_embeddings=True)
    tensors = load_file(base / "model.safetensors")
    embeddings = tensors["model.embed_tokens.weight"]
    tensors["lm_head.weight"] = embeddings.clone() if equal else embeddings.flip(0).contiguous()
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    options = {"trainable_token_indices": [4, 5]} if equal else {"target_modules": ["embed_tokens", "q_proj"]}
    adapter = write_adapter(base, tmp_path / "adapter", lora(**options))
    done = merge(adapter, tmp_path / "merged", base=str(base))
    assert done.tied
    assert_same(done.folder, base, adapter)
    ours = load_file(done.folder / "model.safetensors")
    assert torch.equal(ours["lm_head.weight"], ours["model.embed_tokens.weight"]) == equal


def test_a_classifier_gets_the_head_of_the_adapter(tmp_path: Path) -> None:
    base = model_folder(tmp_path / "base")
    config = lora(task_type="SEQ_CLS")
    auto = AutoModelForSequenceClassification
    adapter = write_adapter(base, tmp_path / "adapter", config, auto=auto, num_labels=1, pad_token_id=0)
    done = merge(adapter, tmp_path / "merged", base=str(base))
    assert done.dropped == ["lm_head.weight"]
    assert_same(done.folder, base, adapter, auto=auto, num_labels=1, pad_token_id=0)
    assert json.loads((done.folder / "config.json").read_text())["architectures"] == ["LlamaForSequenceClassification"]


def test_bfloat16_is_rounded_once(tmp_path: Path) -> None:
    base = model_folder(tmp_path / "base")
    load(base).to(torch.bfloat16).save_pretrained(base)
    adapter = write_adapter(base, tmp_path / "adapter", lora())
    done = merge(adapter, tmp_path / "merged", base=str(base))
    with_adapter = load(base)
    expected = dict(with_adapter.named_parameters())["model.layers.0.self_attn.q_proj.weight"]
    tensors = load_file(adapter / "adapter_model.safetensors")
    key = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"
    exact = expected.double() + 4 * tensors[key.format("B")].double() @ tensors[key.format("A")].double()
    ours = load_file(done.folder / "model.safetensors")["model.layers.0.self_attn.q_proj.weight"]
    assert ours.dtype == torch.bfloat16
    assert (ours != exact.to(torch.bfloat16)).float().mean() < 1e-3
    assert done.largest is not None and 1e-5 < done.largest.value < 0.05
    wide = merge(adapter, tmp_path / "wide", base=str(base), dtype="float32")
    assert_same(wide.folder, base, adapter)
