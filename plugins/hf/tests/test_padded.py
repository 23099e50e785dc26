"""Recurrent and hybrid layers, chunked attention, ALiBi: sequences of a row side by side, apart to the last bit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tunesmith_hf import padded

from tests import tiny
from tunesmith import Example, ModelError, Needs, Policy, Run, build_policy, collate
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
    """A supervised run on a tiny model of its own, with weights so large that a leak shows."""
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
    """Log-probabilities of one sequence's scored tokens by the library's own forward, with gradients."""
    tokens = torch.tensor(example.path_tokens(which))
    scored = torch.nonzero(torch.from_numpy(example.segments[which].weights))[:, 0]
    scored += len(tokens) - len(example.segments[which].tokens)
    logits = policy.language_model.plain_logits(tokens)[scored - 1]
    return torch.log_softmax(logits.float(), -1).gather(-1, tokens[scored][:, None])[:, 0]


def gradients(policy: Policy, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    loss.backward()  # type: ignore[no-untyped-call]
    found = {name: p.grad.clone() for name, p in policy.model.named_parameters() if p.grad is not None}
    policy.model.zero_grad()
    return found


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Run, Policy]]:
    run, policy = started(sft_config(tmp_path_factory.mktemp(request.param), request.param))
    with run.alive():
        yield run, policy


def test_a_packed_row_is_each_example_alone(model: tuple[Run, Policy]) -> None:
    run, policy = model
    assert policy.language_model.attention == "padded" and not run.shares_prompts
    assert run.data is not None
    examples = list(run.data.train)
    batch = collate(examples, share=run.shares_prompts)
    ours = policy(batch).logps
    theirs = torch.cat([alone(policy, example) for example in examples])
    assert torch.allclose(ours, theirs, atol=1e-5)
    one, other = (gradients(policy, -logps.mean()) for logps in (ours, theirs))
    assert one.keys() == other.keys()
    assert all(torch.allclose(one[name], other[name], atol=1e-5) for name in one)
    assert "padding" in run.notes["sequences are padded inside"]


def test_an_example_does_not_see_its_neighbours(model: tuple[Run, Policy]) -> None:
    """Another before it and another after it, of the same lengths: not a bit changes."""
    run, policy = model
    assert run.data is not None
    first, mine, last = run.data.train[0], run.data.train[1], run.data.train[2]
    others = [Example.text((e.segments[1].tokens + 1) % 300, e.segments[1].weights) for e in (first, last)]
    start = first.trained_tokens
    with torch.no_grad():
        before, after = (
            policy(collate([one, mine, two])).logps[start : start + mine.trained_tokens]
            for one, two in ((first, last), others)
        )
    assert torch.equal(before, after)


def test_prompts_of_unequal_length_are_continued_as_each_alone(model: tuple[Run, Policy]) -> None:
    """Against the likeliest token of one forward after the other."""
    run, policy = model
    assert run.data is not None
    prompts = [e.prompt for e in run.data.train[:3]]
    with torch.no_grad():
        for prompt, answer in zip(
            prompts, policy.generate(prompts, seed=1, max_new_tokens=2, temperature=0.0), strict=True
        ):
            tokens = list(prompt)
            for token in answer:
                assert int(policy.language_model.plain_logits(torch.tensor(tokens))[-1].argmax()) == token
                tokens.append(token)


def test_branches_read_their_prompt_whether_it_is_repeated_or_shared_in_the_row(model: tuple[Run, Policy]) -> None:
    _, policy = model
    pairs = [Example.branches([5, 6, 7, 8, 9], [[1, 2, 3], [4]]), Example.branches([], [[11, 12], [13, 14, 15]])]
    theirs = torch.cat([alone(policy, pairs[0], 1), alone(policy, pairs[0], 2)])
    for share in (True, False):
        with torch.no_grad():
            assert torch.allclose(policy(collate(pairs, share=share)).logps[:4], theirs, atol=1e-5)


def test_states_and_router_logits_are_those_of_tokens(tmp_path: Path) -> None:
    run, policy = started(sft_config(tmp_path, "jamba"))
    assert run.data is not None
    batch = collate(list(run.data.train))
    found = policy.language_model.hidden(batch, [1], router=True)
    assert {len(states) for states in (found.last, found.layers[1], *found.router)} == {batch.tokens}
    apart = [policy.language_model.hidden(collate([example]), [1], router=True) for example in run.data.train]
    assert torch.allclose(found.layers[1], torch.cat([one.layers[1] for one in apart]), atol=1e-5)
    assert torch.allclose(found.router[0], torch.cat([one.router[0] for one in apart]), atol=1e-5)
    assert policy(batch, Needs(router=True)).router_loss.isfinite()


def test_any_model_can_be_padded_and_it_changes_nothing(tmp_path: Path) -> None:
    found = []
    for backend in ("slices", "padded"):
        run, policy = started(sft_config(tmp_path, "gemma3", attn_implementation=backend))
        assert run.data is not None and run.shares_prompts == (backend == "slices")
        with run.alive():
            found.append(gradients(policy, policy(collate(list(run.data.train))).logps.mean()))
    assert all(torch.allclose(found[0][name], found[1][name], atol=1e-5) for name in found[0])


@pytest.mark.parametrize(
    ("name", "backend", "message"),
    [
        ("lfm2", "slices", "Lfm2ForCausalLM has conv layers: slices can't"),
        ("mamba2", "dense", "Mamba2ForCausalLM has linear_attention layers: dense can't"),
        ("bloom", "slices", "BloomForCausalLM takes no attention from outside: slices can't"),
    ],
)
def test_what_would_mix_examples_is_refused(name: str, backend: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=rf"{message} do that\n.*attn_implementation: auto"):
        started(sft_config(tmp_path, name, attn_implementation=backend))


def test_a_head_of_several_layers_is_refused(tmp_path: Path) -> None:
    """Its last layer alone would give other logits than the model's own."""
    path = sft_config(tmp_path, "bloom")
    network = transformers.AutoModelForCausalLM.from_config(transformers.RobertaConfig(**SIZES, is_decoder=True))
    network.save_pretrained(tmp_path / "model-bloom")
    with pytest.raises(ModelError, match=r"RobertaForCausalLM is more than lm_head\.decoder"):
        started(path)


def test_checkpointed_activations_change_nothing(tmp_path: Path) -> None:
    found = []
    for name, on in (("a", True), ("b", False)):
        run, policy = started(
            sft_config(tmp_path, "qwen3_next", gradient_checkpointing=on, output_dir=str(tmp_path / name))
        )
        assert run.data is not None
        policy.model.train()
        found.append(gradients(policy, policy(collate(list(run.data.train))).logps.mean()))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


@pytest.mark.parametrize("name", ["lfm2", "falcon_h1"])
def test_what_was_trained_is_what_transformers_loads(name: str, tmp_path: Path) -> None:
    policy = tiny.train(sft_config(tmp_path, name, max_steps=2)).policy
    policy.model.eval()
    read = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    tokens = torch.tensor([5, 6, 7, 8])
    with torch.no_grad():
        assert torch.equal(read(tokens[None]).logits[0], policy.language_model.plain_logits(tokens))


def test_plan_counts_it_or_says_that_it_goes_from_token_to_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = prepare(tiny.start(sft_config(tmp_path, "mamba2")))
    planned = plan(run)
    assert (planned["attention"], planned["shares_prompts"]) == ("padded", False) and planned["memory"]["total"] > 0
    monkeypatch.setattr(padded, "OPERATIONS", 30)
    assert "token to token" in plan(run)["memory"]["not counted"]
