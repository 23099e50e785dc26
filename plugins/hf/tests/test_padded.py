"""Packing changes nothing in models with recurrent layers, chunked attention or ALiBi, which get padded sequences."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tunesmith_hf import padded

from tests import tiny
from tunesmith import Example, ModelError, Needs, Policy, Request, Run, Sampling, build_policy, collate
from tunesmith.api import plan, prepare

SIZES: dict[str, Any] = {
    "vocab_size": 320, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512,
}  # fmt: skip
MIXTURE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
SCAN = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_n_groups": 1, "mamba_d_state": 8, "mamba_chunk_size": 8}
DELTA = {
    "linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
    "head_dim": 8, "layer_types": ["linear_attention", "full_attention"],
}  # fmt: skip
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "mamba": ("MambaConfig", {"vocab_size": 320, "hidden_size": 32, "state_size": 8, "num_hidden_layers": 1}),
    "mamba2": (
        "Mamba2Config",
        {"vocab_size": 320, "hidden_size": 32, "state_size": 8, "num_hidden_layers": 2, "num_heads": 8, "head_dim": 8,
         "n_groups": 1, "chunk_size": 8},
    ),
    "qwen3_next": ("Qwen3NextConfig", SIZES | DELTA | MIXTURE | {"shared_expert_intermediate_size": 16}),
    "falcon_h1": ("FalconH1Config", SIZES | SCAN | {"mamba_d_ssm": 64, "lm_head_multiplier": 0.5}),
    "lfm2": ("Lfm2Config", SIZES | {"layer_types": ["conv", "full_attention"]}),
    "jamba": (
        "JambaConfig",
        SIZES | {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1,
                 "num_experts": 4, "mamba_d_state": 8, "mamba_dt_rank": 4},
    ),
    "recurrent_gemma": ("RecurrentGemmaConfig", SIZES | {"num_hidden_layers": 3, "lru_width": 32,
                                                         "attention_window_size": 8}),
    "llama4": (
        "Llama4TextConfig",
        SIZES | {"head_dim": 8, "attention_chunk_size": 8, "layer_types": ["chunked_attention", "full_attention"],
                 "num_local_experts": 4, "intermediate_size_mlp": 64, "no_rope_layers": [1, 0]},
    ),
    "bloom": ("BloomConfig", {"vocab_size": 320, "hidden_size": 32, "n_layer": 2, "n_head": 4}),
}  # fmt: skip
NUMBER = 4


def sft_config(folder: Path, name: str, **keys: Any) -> Path:
    """Write a supervised config with a tiny model of its own, whose large weights make a leak visible."""
    if name in MODELS and not (folder / f"model-{name}").exists():
        kind, sizes = MODELS[name]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            config = getattr(transformers, kind)(**sizes)
            model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
            for parameter in model.parameters():
                parameter.data.mul_(3.0) if parameter.ndim > 1 else None
        model.save_pretrained(folder / f"model-{name}")
        tiny.tokenizer().save_pretrained(folder / f"model-{name}")
    return tiny.sft_config(folder, name, NUMBER, **keys)


def started(path: Path) -> tuple[Run, Policy]:
    run = prepare(tiny.start(path))
    policy = build_policy(run)
    policy.model.eval()
    return run, policy


def alone(policy: Policy, example: Example, which: int = 1) -> torch.Tensor:
    """Return the log-probabilities of one sequence's scored tokens by transformers' own forward, with gradients."""
    tokens = torch.tensor(example.path_tokens(which))
    scored = torch.nonzero(torch.from_numpy(example.segments[which].weights))[:, 0]
    scored += len(tokens) - len(example.segments[which].tokens)
    logits = policy.language_model.plain_logits(tokens)[scored - 1]
    return torch.log_softmax(logits.float(), -1).gather(-1, tokens[scored][:, None])[:, 0]


def gradients(policy: Policy, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    loss.backward()  # type: ignore[no-untyped-call]
    values = {name: p.grad.clone() for name, p in policy.model.named_parameters() if p.grad is not None}
    policy.model.zero_grad()
    return values


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Run, Policy]]:
    run, policy = started(sft_config(tmp_path_factory.mktemp(request.param), request.param))
    with run.alive():
        yield run, policy


def test_packed_equals_unpacked(model: tuple[Run, Policy]) -> None:
    run, policy = model
    assert policy.language_model.attention == "padded" and not run.shares_prompts
    assert run.data is not None
    examples = list(run.data.train)
    batch = collate(examples, share=run.shares_prompts)
    packed = policy(batch).logps
    unpacked = torch.cat([alone(policy, example) for example in examples])
    assert torch.allclose(packed, unpacked, atol=1e-5)
    packed_gradients, unpacked_gradients = (gradients(policy, -logps.mean()) for logps in (packed, unpacked))
    assert packed_gradients.keys() == unpacked_gradients.keys()
    for name, gradient in packed_gradients.items():
        assert torch.allclose(gradient, unpacked_gradients[name], atol=1e-5), name
    assert "of the computed positions" in run.notes["padding inside the model"]


def test_example_does_not_see_its_neighbors(model: tuple[Run, Policy]) -> None:
    """Replacing both neighbors by others of the same lengths does not change a bit."""
    run, policy = model
    assert run.data is not None
    first, middle, last = run.data.train[0], run.data.train[1], run.data.train[2]
    replaced = [Example.text((e.segments[1].tokens + 1) % 300, e.segments[1].weights) for e in (first, last)]
    start = first.trained_tokens
    with torch.no_grad():
        original_logps, replaced_logps = (
            policy(collate([left, middle, right])).logps[start : start + middle.trained_tokens]
            for left, right in ((first, last), replaced)
        )
    assert torch.equal(original_logps, replaced_logps)


def test_generation_in_a_batch_equals_generation_alone(model: tuple[Run, Policy]) -> None:
    """Compare with the most likely token of successive forwards."""
    run, policy = model
    assert run.data is not None
    requests = [Request(e.prompt, 3, n=2, sampling=Sampling(temperature=0.0)) for e in run.data.train[:3]]
    with torch.no_grad():
        for request, (completion, copy) in zip(requests, policy.generate(requests), strict=True):
            assert copy.tokens.tolist() == completion.tokens.tolist()
            tokens = list(request.prompt)
            for token in completion.tokens.tolist():
                assert int(policy.language_model.plain_logits(torch.tensor(tokens))[-1].argmax()) == token
                tokens.append(token)


def test_branches_read_a_repeated_or_a_shared_prompt_alike(model: tuple[Run, Policy]) -> None:
    _, policy = model
    pairs = [Example.branches([5, 6, 7, 8, 9], [[1, 2, 3], [4]]), Example.branches([], [[11, 12], [13, 14, 15]])]
    expected = torch.cat([alone(policy, pairs[0], 1), alone(policy, pairs[0], 2)])
    for share in (True, False):
        with torch.no_grad():
            assert torch.allclose(policy(collate(pairs, share=share)).logps[:4], expected, atol=1e-5)


def test_states_and_router_logits_have_the_order_of_the_pack(tmp_path: Path) -> None:
    run, policy = started(sft_config(tmp_path, "jamba"))
    assert run.data is not None
    batch = collate(list(run.data.train))
    packed = policy.language_model.hidden(batch, [1], router=True)
    assert {len(states) for states in (packed.last, packed.layers[1], *packed.router)} == {batch.tokens}
    unpacked = [policy.language_model.hidden(collate([example]), [1], router=True) for example in run.data.train]
    assert torch.allclose(packed.layers[1], torch.cat([hidden.layers[1] for hidden in unpacked]), atol=1e-5)
    assert torch.allclose(packed.router[0], torch.cat([hidden.router[0] for hidden in unpacked]), atol=1e-5)
    assert policy(batch, Needs(router=True)).router_loss.isfinite()


def test_padding_changes_nothing_in_any_model(tmp_path: Path) -> None:
    values = []
    for backend in ("slices", "padded"):
        run, policy = started(sft_config(tmp_path, "gemma3", attn_implementation=backend))
        assert run.data is not None and run.shares_prompts == (backend == "slices")
        with run.alive():
            values.append(gradients(policy, policy(collate(list(run.data.train))).logps.mean()))
    assert all(torch.allclose(values[0][name], values[1][name], atol=1e-5) for name in values[0])


@pytest.mark.parametrize(
    ("name", "backend", "message"),
    [
        ("lfm2", "slices", "Lfm2ForCausalLM has conv layers, which attn_implementation: slices does"),
        ("mamba2", "dense", "Mamba2ForCausalLM has linear_attention layers, which attn_implementation: dense does"),
        ("bloom", "slices", "BloomForCausalLM has attention of its own, which attn_implementation: slices does"),
    ],
)
def test_attention_that_would_mix_examples_is_refused(name: str, backend: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=rf"{message} not support\n.*attn_implementation: auto"):
        started(sft_config(tmp_path, name, attn_implementation=backend))


def test_head_of_several_layers_is_refused(tmp_path: Path) -> None:
    """The last layer alone would give other logits than the model."""
    path = sft_config(tmp_path, "bloom")
    network = transformers.AutoModelForCausalLM.from_config(transformers.RobertaConfig(**SIZES, is_decoder=True))
    network.save_pretrained(tmp_path / "model-bloom")
    with pytest.raises(ModelError, match=r"RobertaForCausalLM has more layers than lm_head\.decoder"):
        started(path)


def test_activation_checkpointing_changes_no_gradient(tmp_path: Path) -> None:
    values = []
    for name, on in (("a", True), ("b", False)):
        run, policy = started(
            sft_config(tmp_path, "qwen3_next", gradient_checkpointing=on, output_dir=str(tmp_path / name))
        )
        assert run.data is not None
        policy.model.train()
        values.append(gradients(policy, policy(collate(list(run.data.train))).logps.mean()))
    assert all(torch.equal(values[0][name], values[1][name]) for name in values[0])


@pytest.mark.parametrize("name", ["lfm2", "falcon_h1"])
def test_saved_model_equals_trained_model(name: str, tmp_path: Path) -> None:
    policy = tiny.train(sft_config(tmp_path, name, max_steps=2)).policy
    policy.model.eval()
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    tokens = torch.tensor([5, 6, 7, 8])
    with torch.no_grad():
        assert torch.equal(loaded(tokens[None]).logits[0], policy.language_model.plain_logits(tokens))


def test_plan_counts_memory_or_reports_a_scan_token_by_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = prepare(tiny.start(sft_config(tmp_path, "mamba2")))
    planned = plan(run)
    assert (planned["attention"], planned["shares_prompts"]) == ("padded", False) and planned["memory"]["total"] > 0
    monkeypatch.setattr(padded, "MAX_OPERATIONS", 30)
    assert "token by token" in plan(run)["memory"]["not counted"]
