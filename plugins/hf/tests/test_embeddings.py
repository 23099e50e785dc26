"""Embedding rows for added tokens start alike everywhere, are trained, and are saved with the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests import tiny
from tunesmith import ConfigError, ModelError, build_policy
from tunesmith.api import plan, prepare, start, train, verify
from tunesmith.config.load import load_config

KEYS: dict[str, Any] = {
    "tokens": ["<think>", "</think>"],
    "special_tokens": {"pad_token": "[[filler]]", "bos_token": "<|begin|>"},
    "added_tokens_overrides": {0: "<|turn|>"},
}
NEW = [320, 321, 322, 323]


def sft_config(folder: Path, architecture: str = "llama", **keys: Any) -> Path:
    """Write a config whose rows contain the added tokens, and whose tokenizer has a token without a role to rename."""
    model = folder / f"model-{architecture}"
    if not model.exists():
        tiny.model_folder(model, architecture)
        settings = json.loads((model / "tokenizer_config.json").read_text())
        settings.pop("pad_token")
        (model / "tokenizer_config.json").write_text(json.dumps(settings))
        records = tiny.rows("conversation", 16)
        for record in records:
            record["messages"][-1]["content"] += "<think>the dog</think><|turn|>"
        tiny.write_rows(folder / "data.jsonl", records)
    return tiny.sft_config(folder, architecture, **(KEYS | keys))


def policy_of(path: Path, *overrides: str) -> Any:
    return build_policy(prepare(tiny.start(path, *overrides)))


def logits(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=tokens[None]).logits[0]  # type: ignore[no-any-return]


@pytest.mark.parametrize("architecture", ["llama", "gemma3", "gpt_neox", "mixtral"])
def test_saved_model_equals_trained_model(architecture: str, tmp_path: Path) -> None:
    """Embeddings and head may be separate (llama), tied (gemma3) or have other names (gpt_neox)."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    policy = tiny.train(sft_config(tmp_path, architecture, max_steps=2)).policy
    model, tokenizer = (kind.from_pretrained(tmp_path / "out") for kind in (AutoModelForCausalLM, AutoTokenizer))
    assert model.config.vocab_size == model.get_input_embeddings().num_embeddings == len(tokenizer) == 324
    tokens = torch.tensor(tokenizer.encode("a cat<think> sees</think><|turn|>[[filler]]<|begin|>"))
    assert {0, *NEW} <= set(tokens.tolist())
    with policy.language_model.attending("sdpa"):
        assert torch.equal(logits(model, tokens), logits(policy.model, tokens))
    assert tokenizer.chat_template == tiny.CHATML
    for config in (model.config, model.generation_config):
        assert (config.bos_token_id, config.pad_token_id) == (322, 323)


@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_new_rows_are_the_mean_and_old_logits_are_unchanged(architecture: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    policy = policy_of(sft_config(tmp_path, architecture))
    model = policy.model
    original = AutoModelForCausalLM.from_pretrained(tmp_path / f"model-{architecture}")
    for end in ("get_input_embeddings", "get_output_embeddings"):
        old, new = getattr(original, end)().weight, getattr(model, end)().weight
        assert torch.equal(new[1:320], old[1:]) and torch.equal(new[320], new[323])
        assert torch.allclose(new[320], old.mean(0), atol=1e-6)
    tokens = torch.arange(3, 40)
    with policy.language_model.attending("sdpa"):
        grown_logits = logits(model, tokens)
    assert torch.equal(grown_logits[:, 1:320], logits(original, tokens)[:, 1:])
    again = policy_of(sft_config(tmp_path, architecture)).model
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_row_of_a_former_padding_token_is_trained(tmp_path: Path) -> None:
    """Token 0 of Gemma is padding: its row is zero, and torch gives it no gradient."""
    policy = policy_of(sft_config(tmp_path, "gemma3"))
    embeddings = policy.model.get_input_embeddings()
    before = tiny.weights(tmp_path / "model-gemma3")["model.embed_tokens.weight"]
    assert not before[0].any() and torch.equal(embeddings.weight[0], embeddings.weight[320])
    embeddings(torch.tensor([0])).sum().backward()
    assert embeddings.weight.grad[0].all()


def test_plan_counts_new_rows_without_weights(tmp_path: Path) -> None:
    path = sft_config(tmp_path, resize_token_embeddings_to_32x=True)
    report = plan(prepare(tiny.start(path)))
    assert report["parameters"] == sum(p.numel() for p in policy_of(path).model.parameters())
    assert report["notes"]["embedding rows"] == "320 -> 352"


def test_verify_passes_with_new_rows(tmp_path: Path) -> None:
    assert all(check["ok"] for check in verify(prepare(tiny.start(sft_config(tmp_path)))))


@pytest.mark.parametrize("adapter", [None, "lora"])
def test_resumed_run_is_bit_identical(adapter: str | None, tmp_path: Path) -> None:
    keys: dict[str, Any] = {"adapter": adapter, "save_steps": 2, "lora_dropout": 0.1 if adapter else None}
    keys["lora_trainable_tokens"] = ["<think>", "</think>", "<|begin|>"] if adapter else None
    unbroken = tiny.train(sft_config(tmp_path, output_dir=str(tmp_path / "unbroken"), **keys))
    halfway = f"resume_from_checkpoint={tmp_path / 'unbroken' / 'checkpoint-2'}"
    resumed = tiny.train(sft_config(tmp_path, **keys), halfway)
    assert unbroken.steps == resumed.steps == 4
    expected, actual = tiny.weights(tmp_path / "unbroken"), tiny.weights(tmp_path / "out")
    assert expected.keys() == actual.keys() and all(torch.equal(expected[name], actual[name]) for name in expected)


def test_resuming_with_other_tokens_is_refused(tmp_path: Path) -> None:
    path = sft_config(tmp_path, save_steps=2)
    tiny.train(path, "max_steps=2")
    with pytest.raises(ConfigError, match="can't resume: tokens"):
        tiny.train(path, "resume_from_checkpoint=auto", "tokens=[<think>]")


@pytest.mark.slow
def test_two_processes_train_the_same_as_one(tmp_path: Path) -> None:
    single = sft_config(tmp_path, name="one.yaml", output_dir=str(tmp_path / "one"), micro_batch_size=1,
                        gradient_accumulation_steps=2)  # fmt: skip
    several = [
        sft_config(tmp_path, name=f"{name}.yaml", output_dir=str(tmp_path / name), micro_batch_size=1, **keys)
        for name, keys in (("two", {}), ("sharded", {"fsdp_config": {}}))
    ]
    tiny.train(single)
    tiny.torchrun(2, *several)
    alone = tiny.weights(tmp_path / "one")
    for name in ("two", "sharded"):
        together = tiny.weights(tmp_path / name)
        assert alone.keys() == together.keys()
        assert all(torch.allclose(alone[key], together[key], atol=1e-5) for key in alone)


def test_padded_vocabulary_keeps_its_rows_and_zero_rows_become_the_mean(tmp_path: Path) -> None:
    folder = tiny.model_folder(tmp_path / "model-llama", vocab_size=384)
    weights = load_file(folder / "model.safetensors")
    weights["model.embed_tokens.weight"][321] = 0
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    path = tiny.sft_config(tmp_path, tokens=["<think>", "</think>"])
    run = prepare(tiny.start(path))
    rows = build_policy(run).model.get_input_embeddings().weight
    old = weights["model.embed_tokens.weight"]
    assert len(rows) == 384 and "embedding rows" not in run.notes
    assert torch.equal(rows[[320, 322]], old[[320, 322]])
    assert torch.allclose(rows[321], old.mean(0), atol=1e-6)
    grown = policy_of(path, "resize_token_embeddings_to_32x=true").model.get_input_embeddings()
    assert grown.num_embeddings == 384  # a multiple already


def test_tokenizer_of_another_model_adds_no_rows(tmp_path: Path) -> None:
    tiny.model_folder(tmp_path / "model-llama", vocab_size=300)
    with pytest.raises(ModelError, match="the tokenizer has 321 tokens, but the model has 300 embedding rows"):
        policy_of(tiny.sft_config(tmp_path, tokens=["<think>"], resize_token_embeddings_to_32x=True))


def test_new_rows_are_random_if_all_weights_are(tmp_path: Path) -> None:
    rows = policy_of(sft_config(tmp_path, reinit_weights=True)).model.get_input_embeddings().weight
    assert len(rows) == 324 and not torch.equal(rows[320], rows[321])


def test_given_model_grows_and_is_trained_in_place(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    path = sft_config(tmp_path, max_steps=1)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model-llama")
    run = prepare(start(load_config(path), model=model))
    plan(run)
    assert model.get_input_embeddings().num_embeddings == 320
    assert train(run).policy.model is model and model.get_input_embeddings().num_embeddings == 324


def test_new_eos_token_is_saved_next_to_the_old_ones(tmp_path: Path) -> None:
    from transformers import GenerationConfig

    model = tiny.model_folder(tmp_path / "model-llama")
    GenerationConfig(eos_token_id=[7, 2]).save_pretrained(model)
    tiny.write_rows(tmp_path / "text.jsonl", tiny.rows("text", 8))
    data = [{"path": str(tmp_path / "text.jsonl"), "type": "completion"}]
    tiny.train(tiny.sft_config(tmp_path, datasets=data, special_tokens={"eos_token": "<|stop|>"}, max_steps=1))
    assert GenerationConfig.from_pretrained(tmp_path / "out").eos_token_id == [320, 7, 2]
    assert json.loads((tmp_path / "out" / "config.json").read_text())["eos_token_id"] == 320


LORA: dict[str, Any] = {"adapter": "lora", "added_tokens_overrides": None}


@pytest.mark.parametrize(
    ("architecture", "ends"),
    [("llama", "embed_tokens, lm_head"), ("gemma3", "embed_tokens, lm_head"), ("gpt_neox", "embed_in, lm_head")],
)
def test_adapter_with_frozen_new_rows_is_refused(architecture: str, ends: str, tmp_path: Path) -> None:
    """`plan` raises the same error. A new padding token alone is accepted, because the model never reads it."""
    path = sft_config(tmp_path, architecture, **LORA)
    run = prepare(tiny.start(path))
    for build in (plan, build_policy):
        with pytest.raises(ConfigError) as caught:
            build(run)
        assert [p.where.rsplit("/")[-1].split(":")[0] for p in caught.value.problems if p.where] == ["run.yaml"] * 3
        assert "tokens.0 adds '<think>', but its row in" in str(caught.value) and f"[{ends}]" in str(caught.value)
    first = ends.split(",", maxsplit=1)[0]
    with pytest.raises(ConfigError, match="its row in lm_head is not trained"):
        policy_of(path, f"lora_modules_to_save=[{first}]")
    with pytest.raises(ConfigError, match=r"tokens\.1 adds '</think>'"):
        policy_of(path, "lora_trainable_tokens=[<think>, <|begin|>]")
    assert policy_of(path, "tokens=[]", "special_tokens={pad_token: '[[filler]]'}")


def test_adapter_with_a_frozen_renamed_row_warns(tmp_path: Path) -> None:
    run = prepare(tiny.start(sft_config(tmp_path, adapter="lora", tokens=None, special_tokens=None)))
    build_policy(run)
    warning = next(f"{name}: {text}" for name, text in run.notes.items() if "overrides" in name)
    assert "the row of '<|turn|>' in embed_tokens and lm_head is not trained" in warning and "run.yaml:" in warning


@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
@pytest.mark.parametrize(
    "keys",
    [
        {"lora_modules_to_save": ["embed_tokens", "lm_head"]},
        {"lora_trainable_tokens": ["<think>", "</think>", "<|begin|>"]},
    ],
    ids=["matrices", "rows"],
)
def test_peft_loads_an_adapter_with_new_rows(keys: Any, architecture: str, tmp_path: Path) -> None:
    from peft import AutoPeftModelForCausalLM

    policy = tiny.train(sft_config(tmp_path, architecture, max_steps=2, **LORA, **keys)).policy
    model = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "out")
    tokens = torch.tensor([*NEW[:3], *range(3, 30)])
    with policy.language_model.attending("sdpa"):
        trained = logits(policy.model, tokens)
    assert torch.allclose(logits(model, tokens), trained, atol=1e-4)
    rows = tiny.weights(tmp_path / "out")
    assert all(len(value) in (3, 324) for name, value in rows.items() if "lora_" not in name)


def test_rows_that_peft_would_not_add_are_refused(tmp_path: Path) -> None:
    path = sft_config(tmp_path, **LORA, resize_token_embeddings_to_32x=True, lora_trainable_tokens=["<think>"])
    with pytest.raises(ConfigError, match="gives the base model 352 rows, but peft gives it 324"):
        policy_of(path)
