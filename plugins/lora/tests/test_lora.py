"""LoRA starts as the base model, trains nothing else, loads in peft, and continues from a saved adapter."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from tunesmith_lora import LoraSettings, options
from tunesmith_lora.adapter import layers_without_adapter

from tests import tiny
from tunesmith import ConfigError, Example, Finding, ModelError, build_policy, collate
from tunesmith.api import prepare
from tunesmith.cli.doctor import diagnose


def policy_of(folder: Path, **keys: Any) -> Any:
    run = prepare(tiny.start(tiny.sft_config(folder, adapter="lora", **keys)))
    return run, build_policy(run)


def test_policy_equals_base_model_at_step_0(tmp_path: Path) -> None:
    run, policy = policy_of(tmp_path)
    policy.model.eval()
    batch = collate(run.data.train[:3])
    with torch.no_grad(), policy.reference() as reference:
        switched_off = reference(batch).logps
    with torch.no_grad():
        assert torch.equal(policy(batch).logps, switched_off)


def test_only_the_adapter_is_trained(tmp_path: Path) -> None:
    path = tiny.sft_config(tmp_path, adapter="lora", lora_target_modules=["q_proj"])
    result = tiny.train(path)
    base = tiny.weights(tmp_path / "model-llama")
    trained = dict(result.policy.model.named_parameters())
    assert {n for n, p in trained.items() if p.requires_grad} == {n for n in trained if "lora_" in n}
    assert all("q_proj" in n for n in trained if "lora_" in n)
    for name, value in base.items():
        frozen = trained.get(name, trained.get(name.replace(".weight", ".base_layer.weight")))
        assert frozen is not None and torch.equal(frozen, value), name


def test_disabled_adapter_gives_the_base_model(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    policy = tiny.train(tiny.sft_config(tmp_path, adapter="lora")).policy
    policy.model.eval()
    batch = collate([Example.text(list(range(3, 40)))])
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "model-llama")
    logps = base(input_ids=batch.input_ids).logits[0].log_softmax(-1)[batch.score_from, batch.target_ids]
    with torch.no_grad(), policy.reference() as reference:
        assert torch.allclose(reference(batch).logps, logps, atol=1e-5)
    with torch.no_grad():
        assert not torch.allclose(policy(batch).logps, logps, atol=1e-3)


def test_peft_loads_the_saved_adapter(tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    result = tiny.train(tiny.sft_config(tmp_path, adapter="lora", lora_modules_to_save=["embed_tokens"]))
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "model-llama")
    loaded = PeftModel.from_pretrained(base, tmp_path / "out").eval()
    tokens = torch.arange(30)[None]
    with torch.no_grad(), result.policy.language_model.attending("sdpa"):
        trained = result.policy.model.eval()(input_ids=tokens).logits
        assert torch.allclose(loaded(input_ids=tokens).logits, trained, atol=1e-5)


def test_training_continues_from_a_saved_adapter(tmp_path: Path) -> None:
    tiny.train(tiny.sft_config(tmp_path, adapter="lora"))
    saved = tiny.weights(tmp_path / "out")
    _, policy = policy_of(tmp_path, lora_model_dir=str(tmp_path / "out"), output_dir=str(tmp_path / "next"))
    loaded = {n.replace(".default", ""): p for n, p in policy.model.named_parameters() if p.requires_grad}
    assert loaded and all(torch.equal(saved[f"base_model.model.{n}"], p) for n, p in loaded.items())


def test_unmatched_target_error_lists_the_linear_layers(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"lora_target_modules.*does not match any module(.|\n)*v_proj"):
        policy_of(tmp_path, lora_target_modules=["v_prj"])


@pytest.mark.parametrize(("kind", "left_out"), [("Mamba2Config", "out_proj"), ("Llama4TextConfig", "router")])
def test_layers_that_take_no_adapter_are_left_out(kind: str, left_out: str) -> None:
    config = getattr(transformers, kind)(
        vocab_size=32, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, num_heads=4, head_dim=8, n_groups=1,
        intermediate_size=16, intermediate_size_mlp=16, num_key_value_heads=2, num_local_experts=2,
    )  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_config(config)
    names = layers_without_adapter(model)
    assert names and all(left_out in name for name in names)
    get_peft_model(model, LoraConfig(**options(LoraSettings(), "lm", left_out=names)))
    ids = torch.arange(8)[None]
    model(input_ids=ids, use_cache=False).logits.sum().backward()  # type: ignore[no-untyped-call]
    assert any(p.grad is not None for name, p in model.named_parameters() if "lora_B" in name)


def test_conflicting_keys_and_folders_without_an_adapter_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="lora_target_linear and an expression in lora_target_modules"):
        tiny.start(tiny.sft_config(tmp_path, adapter="lora", lora_target_linear=True, lora_target_modules=".*q_proj"))
    with pytest.raises(ModelError, match=r"no adapter_model\.safetensors"):
        tiny.start(tiny.sft_config(tmp_path, adapter="lora", lora_model_dir=str(tmp_path)))


def test_doctor_warns_about_an_adapter_of_another_model(tmp_path: Path) -> None:
    path = tiny.sft_config(tmp_path, adapter="lora")
    tiny.train(path)
    shutil.copytree(tmp_path / "model-llama", tmp_path / "another")

    def findings(**keys: Any) -> dict[str, Finding]:
        overrides = [f"{key}={value}" for key, value in keys.items()]
        return {finding.what: finding for finding in diagnose(str(path), overrides)}

    assert findings()["peft"].status == "ok" and "lora_model_dir" not in findings()
    keys = {"lora_model_dir": tmp_path / "out", "output_dir": tmp_path / "next"}
    same_model = findings(**keys)["lora_model_dir"]
    assert same_model.status == "ok" and "model-llama" in same_model.detail
    assert findings(**keys, base_model=tmp_path / "another")["lora_model_dir"].status == "warning"


def test_only_rows_of_the_named_tokens_are_trained(tmp_path: Path) -> None:
    keys: dict[str, Any] = {"lora_target_modules": ["q_proj"], "lora_trainable_tokens": ["<|im_end|>", "<|im_start|>"]}
    tiny.train(tiny.sft_config(tmp_path, adapter="lora", **keys))
    base, saved = tiny.weights(tmp_path / "model-llama"), tiny.weights(tmp_path / "out")
    rows = {name: value for name, value in saved.items() if "lora_" not in name}
    assert sorted(name.split(".")[-3] for name in rows) == ["embed_tokens", "lm_head"]
    for name, value in rows.items():
        before = base[name.removeprefix("base_model.model.").replace("token_adapter.trainable_tokens_delta", "weight")]
        assert value.shape == (2, 32) and (value != before[[1, 2]]).any(1).all()


def test_unknown_tokens_and_rows_of_trained_modules_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"lora_trainable_tokens\.0 '<think>' is not in the vocabulary"):
        policy_of(tmp_path, lora_trainable_tokens=["<think>"])
    with pytest.raises(ConfigError, match=r"lora_modules_to_save\.1 lm_head is already trained completely"):
        keys: dict[str, Any] = {"lora_modules_to_save": ["norm", "lm_head"], "lora_trainable_tokens": ["<|im_end|>"]}
        policy_of(tmp_path, **keys)


@pytest.mark.parametrize(
    "rows", [{"lora_trainable_tokens": ["<|tool|>"]}, {"lora_modules_to_save": ["embed_tokens", "lm_head"]}]
)
def test_training_continues_from_an_adapter_with_a_new_token(rows: dict[str, Any], tmp_path: Path) -> None:
    tiny.train(tiny.sft_config(tmp_path, adapter="lora", tokens=["<|tool|>"], **rows))
    saved = tiny.weights(tmp_path / "out")
    keys = {"lora_model_dir": str(tmp_path / "out"), "tokens": ["<|tool|>"], "output_dir": str(tmp_path / "next")}
    loaded = {n.replace(".default", ""): p for n, p in policy_of(tmp_path, **keys)[1].model.named_parameters()}
    loaded = {f"base_model.model.{n}".replace("modules_to_save.", ""): p for n, p in loaded.items()}
    assert all(torch.equal(value, loaded[name]) for name, value in saved.items())
