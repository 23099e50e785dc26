"""Generation with cached keys gives the tokens of transformers, and the log-probabilities of training."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tunesmith_hf import decoding

from tests import tiny
from tunesmith import (
    Example,
    Needs,
    PluginError,
    Policy,
    RecomputingDecoder,
    Request,
    Sampling,
    build_policy,
    collate,
)
from tunesmith.api import start
from tunesmith.config.load import load_config

SIZES: dict[str, Any] = {
    "vocab_size": 320, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 512,
}  # fmt: skip
SLIDING: dict[str, Any] = {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}
MIXTURE: dict[str, Any] = {"num_local_experts": 4, "num_experts_per_tok": 2}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama, grouped heads": ("LlamaConfig", SIZES),
    "llama, tied head": ("LlamaConfig", SIZES | {"tie_word_embeddings": True}),
    "gpt2, learned positions": ("GPT2Config", {"vocab_size": 320, "n_embd": 32, "n_layer": 2, "n_head": 4}),
    "qwen2": ("Qwen2Config", SIZES),
    "qwen3": ("Qwen3Config", SIZES),
    "gemma2, soft caps and a window": (
        "Gemma2Config",
        SIZES | SLIDING | {"attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0},
    ),
    "gemma3, a window": ("Gemma3TextConfig", SIZES | SLIDING),
    "mistral, a window in every layer": ("MistralConfig", SIZES | {"sliding_window": 6}),
    "gpt_oss, sinks": ("GptOssConfig", SIZES | SLIDING | MIXTURE),
    "cohere, scaled logits": ("CohereConfig", SIZES | {"logit_scale": 0.3}),
    "mixtral, experts": ("MixtralConfig", SIZES | MIXTURE),
    "lfm2, states": ("Lfm2Config", SIZES | {"layer_types": ["conv", "full_attention"]}),
    "bloom, alibi": ("BloomConfig", {"vocab_size": 320, "hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "recurrent_gemma, states in modules": (
        "RecurrentGemmaConfig",
        SIZES | {"num_hidden_layers": 3, "lru_width": 32, "attention_window_size": 8},
    ),
}
PROMPTS = [[5, 6, 7], list(range(40, 60)), [9, 8], list(range(100, 109))]


def network(name: str) -> Any:
    """Return a transformers model with large weights, so that every key that attention misses changes the tokens."""
    kind, sizes = MODELS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = getattr(transformers, kind)(**sizes)
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
        for parameter in model.parameters():
            parameter.data.mul_(3.0) if parameter.ndim > 1 else None
    return model


def build(folder: Path, model: Any, **keys: Any) -> Policy:
    path = tiny.sft_config(folder, **keys)
    policy = build_policy(start(load_config(path), tokenizer=tiny.tokenizer(), model=model))
    policy.model.eval()
    return policy


@pytest.fixture(scope="module", params=MODELS)
def policy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Policy]:
    policy = build(tmp_path_factory.mktemp("model"), network(request.param))
    with policy.run.alive():
        yield policy


def rows(group: Any) -> list[list[int]]:
    return [completion.tokens.tolist() for completion in group]


def test_greedy_completions_equal_those_of_transformers(policy: Policy) -> None:
    """The prompts have unequal lengths, and are longer and shorter than the sliding windows."""
    model: Any = policy.model
    end = tiny.tokenizer().eos_token_id
    groups = policy.generate([Request(p, 14, n=2, sampling=Sampling(temperature=0.0)) for p in PROMPTS])
    before = model.config.get_text_config()._attn_implementation
    model.set_attn_implementation("eager")  # sdpa has no soft caps
    options = transformers.GenerationConfig(do_sample=False, max_new_tokens=14, eos_token_id=end, pad_token_id=0)
    for prompt, group in zip(PROMPTS, groups, strict=True):
        ids = torch.tensor([prompt])
        expected = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=options)
        assert rows(group) == [expected[0, len(prompt) :].tolist()] * 2
    model.set_attn_implementation(before)


def test_logps_of_samples_equal_those_of_training(policy: Policy) -> None:
    """Samples end at unequal lengths, so rows leave the batch, and prompts too."""
    requests = [Request(p, 12 + i, n=3, sampling=Sampling(1.2), seed=(i,)) for i, p in enumerate(PROMPTS)]
    ends = frozenset(range(0, 320, 6))
    policy.language_model.end_tokens = ends
    groups = policy.generate(requests)
    policy.language_model.end_tokens = frozenset()
    assert len({len(row) for group in groups for row in rows(group)}) > 3
    for request, group in zip(requests, groups, strict=True):
        examples = [Example.branches(request.prompt, rows(group))]
        batch = collate(examples, share=policy.language_model.shares_prompts)
        with torch.no_grad():
            hidden = policy.language_model.hidden(batch, (), False).last[batch.score_from]
            logits = policy.language_model.logits(hidden).float() / 1.2
        expected = logits.log_softmax(-1).gather(-1, batch.target_ids[:, None])[:, 0]
        logps = torch.from_numpy(np.concatenate([completion.logps for completion in group]))
        assert torch.allclose(logps, expected, atol=1e-5)


def test_each_architecture_uses_the_fastest_decoder_that_is_right(policy: Policy) -> None:
    decoder = policy.language_model.decoder([[5, 6]], [2])
    with torch.no_grad():
        decoder.prefill()
    name = policy.model.config.model_type  # type: ignore[union-attr]
    if name in ("lfm2", "bloom", "recurrent_gemma"):
        assert isinstance(decoder, decoding.RepeatingDecoder)
        assert isinstance(decoder.instead, RecomputingDecoder) == (name == "recurrent_gemma")
    else:
        assert isinstance(decoder, decoding.SharedDecoder)


def test_a_cache_without_the_states_of_a_recurrent_model_is_not_used() -> None:
    keys, states = transformers.DynamicCache(), transformers.DynamicCache(config=network("lfm2, states").config)
    keys.update(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1), 0)
    for recurrent, cache, complete in [(True, keys, False), (False, keys, True), (True, states, True)]:
        model = decoding.Model(lambda **options: None, "padded", torch.device("cpu"), recurrent)
        decoder = decoding.RepeatingDecoder(model, [[1]], [1], lambda: pytest.fail("not called"))
        assert decoder.is_complete(cache) == complete


def test_a_prompt_runs_once_for_its_samples(tmp_path: Path) -> None:
    policy = build(tmp_path, network("qwen2"))
    counts: list[int] = []
    policy.model.get_input_embeddings().register_forward_hook(  # type: ignore[operator]
        lambda module, inputs, output: counts.append(inputs[0].numel())
    )
    policy.generate([Request([5] * 10, 3, n=4), Request([6] * 7, 3, n=2)])
    assert counts[0] == 17 and max(counts[1:]) <= 6 and len(counts) == 3


def test_cache_grows_beyond_its_first_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = build(tmp_path, network("gemma2, soft caps and a window"))
    requests = [Request([5, 6, 7], 9, n=2), Request([8], 12)]
    groups = policy.generate(requests)
    monkeypatch.setattr(decoding, "ROOM", 2)
    assert [rows(group) for group in policy.generate(requests)] == [rows(group) for group in groups]


@pytest.mark.parametrize("half", [False, True])
def test_an_adapter_takes_part_and_is_switched_off_for_the_reference(half: bool, tmp_path: Path) -> None:
    policy = build(tmp_path, network("llama, tied head"), adapter="lora", bf16=half)
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(generator=torch.Generator().manual_seed(0), std=0.5)
    request = Request(PROMPTS[1], 10, n=3)
    (group,) = policy.generate([request])
    with torch.no_grad():
        logps = policy(collate([Example.branches(request.prompt, rows(group))]), Needs(logps=True)).logps.float()
    generated = torch.from_numpy(np.concatenate([completion.logps for completion in group]))
    assert torch.allclose(generated, logps, atol=0.1 if half else 1e-5)
    policy.generator.check()
    with policy.reference() as reference:
        (before,) = reference.generate([request])
    assert rows(before) != rows(group)


def test_end_tokens_are_those_of_generation_config_json(tmp_path: Path) -> None:
    model = network("qwen2")
    assert decoding.end_tokens(model) == frozenset()  # derived from config.json, where 2 is a default
    model.generation_config = transformers.GenerationConfig(eos_token_id=[7, 300])
    assert decoding.end_tokens(model) == {7, 300}
    policy = build(tmp_path, model)
    (group,) = policy.generate([Request([5], 400, n=4, sampling=Sampling(3.0))])
    assert {c.finish_reason for c in group} == {"stop"}
    assert {int(c.tokens[-1]) for c in group} <= {7, 300, tiny.tokenizer().eos_token_id}
    assert not any(set(c.tokens[:-1].tolist()) & {7, 300} for c in group)


def test_a_model_without_a_head_for_tokens_does_not_generate(tmp_path: Path) -> None:
    policy = build(tmp_path, network("qwen2"))
    config = transformers.Qwen2Config(**SIZES, num_labels=1)
    policy.language_model.module = transformers.AutoModelForSequenceClassification.from_config(config)
    with pytest.raises(PluginError, match="Qwen2ForSequenceClassification has no head that predicts tokens"):
        policy.generate([Request([5], 2)])
