"""The default loader reads safetensors only, trains given objects, and generates what its forward predicts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests import tiny
from tunesmith import DataError, ModelError, Request, SafetyError, Sampling, build_policy, collate
from tunesmith.api import prepare, start, train
from tunesmith.config.load import load_config


def test_random_weights_need_only_a_config_and_follow_the_seed(tmp_path: Path) -> None:
    path = tiny.sft_config(tmp_path, reinit_weights=True, max_steps=1)
    (tmp_path / "model-llama/model.safetensors").unlink()
    weights = []
    for seed in (1, 1, 2):
        policy = build_policy(prepare(tiny.start(path, f"seed={seed}")))
        weights.append(torch.cat([p.detach().flatten() for p in policy.model.parameters()]))
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_pickled_weights_and_remote_code_are_refused(tmp_path: Path) -> None:
    path = tiny.sft_config(tmp_path)
    model = tmp_path / "model-llama"
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "evil.Model"}}))
    with pytest.raises(SafetyError, match="auto_map"):
        tiny.start(path)
    (model / "config.json").write_text(json.dumps(config))
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    with pytest.raises(SafetyError, match="pickles only"):
        tiny.start(path)
    (model / "pytorch_model.bin").unlink()
    with pytest.raises(ModelError, match=r"no \.safetensors weights(.|\n)*reinit_weights"):
        tiny.start(path)


def test_missing_paths_suggest_similar_names(tmp_path: Path) -> None:
    path = tiny.sft_config(tmp_path)
    with pytest.raises(ModelError, match=r"no such folder(.|\n)*model-llama"):
        tiny.start(path, f"base_model={tmp_path}/model-lama")
    with pytest.raises(DataError, match=r"no such file or folder(.|\n)*data\.jsonl"):
        tiny.start(path, f"datasets.0.path={tmp_path}/dat.jsonl")


def test_special_tokens_assign_roles(tmp_path: Path) -> None:
    run = prepare(tiny.start(tiny.sft_config(tmp_path), "special_tokens.pad_token=<|im_start|>"))
    assert run.tokenizer.pad_token == "<|im_start|>" and len(run.tokenizer) == 320


def test_given_model_and_tokenizer_are_trained(tmp_path: Path) -> None:
    """As in a notebook: the given objects are used, and the given model itself is trained."""
    from transformers import AutoModelForCausalLM

    path = tiny.sft_config(tmp_path, max_steps=2)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model-llama")
    before = model.lm_head.weight.detach().clone()
    result = train(start(load_config(path), tokenizer=tiny.tokenizer(), model=model))
    assert result.policy.model is model and not torch.equal(model.lm_head.weight, before)


def test_greedy_generation_equals_successive_forwards(tmp_path: Path) -> None:
    """Compare a batch of prompts of unequal length with the most likely token of successive forwards."""
    run = prepare(tiny.start(tiny.sft_config(tmp_path)))
    policy = build_policy(run)
    prompts = [e.prompt for e in run.data.train[:3]]
    policy.model.train()
    state = torch.get_rng_state()
    answers = policy.generate([Request(prompt, 5, sampling=Sampling(temperature=0.0)) for prompt in prompts])
    assert torch.equal(torch.get_rng_state(), state) and policy.model.training
    for prompt, (answer,) in zip(prompts, answers, strict=True):
        tokens = list(prompt)
        with torch.no_grad():
            for token in answer.tokens.tolist():
                assert int(policy.language_model.plain_logits(torch.tensor(tokens))[-1].argmax()) == token
                tokens.append(token)


@pytest.mark.parametrize("backend", ["slices", "dense"])
def test_activation_checkpointing_changes_no_gradient(backend: str, tmp_path: Path) -> None:
    gradients = []
    for name, on in (("a", True), ("b", False)):
        keys = {"gradient_checkpointing": on, "attn_implementation": backend, "output_dir": str(tmp_path / name)}
        run = prepare(tiny.start(tiny.sft_config(tmp_path, **keys)))
        policy = build_policy(run)
        policy.model.train()
        policy(collate(run.data.train[:4])).logps.sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in policy.model.parameters()]))
    assert torch.equal(*gradients)


def test_bfloat16_is_close_to_float32_and_trains_float32_weights(tmp_path: Path) -> None:
    losses = []
    for name, half in (("half", True), ("full", False)):
        result = tiny.train(tiny.sft_config(tmp_path, bf16=half, output_dir=str(tmp_path / name), max_steps=2))
        assert all(p.dtype == torch.float32 for p in result.policy.model.parameters())
        losses.append(tiny.metrics(tmp_path / name)[0]["loss"])
    assert losses[0] != losses[1] and losses[0] == pytest.approx(losses[1], rel=2e-2)
