"""A GGUF file computes what the model computes: in transformers, and in llama.cpp where it is installed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tunesmith_export import llamacpp, parity
from tunesmith_export.families import FAMILIES
from tunesmith_export.folders import ParityError
from tunesmith_export.ggufwriter import Tensors, write_gguf

from tests import tiny
from tunesmith import ModelError

LLAMA3 = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64}  # fmt: skip
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 128}
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}
LONGROPE = {"rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0] * 4, "long_factor": [2.0] * 4,
            "original_max_position_embeddings": 64}  # fmt: skip
IDS = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 2}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", {}),
    "llama-bias": ("LlamaConfig", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    "llama-llama3": ("LlamaConfig", {"rope_parameters": LLAMA3}),
    "llama-linear": ("LlamaConfig", {"rope_parameters": LINEAR}),
    "llama-yarn": ("LlamaConfig", {"rope_parameters": YARN}),
    "mistral": ("MistralConfig", {"sliding_window": None}),
    "qwen2": ("Qwen2Config", {}),
    "qwen3": ("Qwen3Config", {"head_dim": 16}),
    "gemma": ("GemmaConfig", {"head_dim": 16}),
    "gemma2": ("Gemma2Config", {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 16}),
    "gemma3": (
        "Gemma3TextConfig",
        {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 16, "num_hidden_layers": 7},
    ),
    "phi3": ("Phi3Config", IDS),
    "smollm3": ("SmolLM3Config", {"num_hidden_layers": 4, **IDS}),
}
UNREADABLE = ("gemma", "smollm3")
"""Families that transformers can't read back."""


def model_folder(folder: Path, name: str, **changes: Any) -> Path:
    """Write a model with random weights, norms and biases that are not their initial values."""
    import transformers

    cls, values = MODELS[name]
    sizes = {"vocab_size": 320, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
             "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512}  # fmt: skip
    config = getattr(transformers, cls)(**(sizes | values | changes))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        for parameter in model.parameters():
            parameter.data.mul_(3.0) if parameter.ndim > 1 else parameter.data.add_(torch.randn_like(parameter) * 0.3)
    with parity.quiet():
        model.save_pretrained(folder)
        tiny.tokenizer().save_pretrained(folder)
    return folder


def texts() -> list[list[int]]:
    return parity.sequences(tiny.tokenizer(), [])


@pytest.mark.parametrize("name", [name for name in MODELS if name not in UNREADABLE])
def test_transformers_reads_back_the_same_logits(name: str, tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "model", name)
    write_gguf(folder, tmp_path / "x.gguf", "F32", "tiny")
    trained = parity.folder_logits(folder, texts())
    difference = parity.compare(trained, parity.gguf_logits(tmp_path / "x.gguf", folder, texts()), parity.EXACT)
    assert difference.relative < 1e-6 and difference.same == 1.0


@pytest.mark.skipif(not llamacpp.installed(), reason="xllamacpp is not installed")
@pytest.mark.parametrize("name", MODELS)
def test_llamacpp_computes_the_same_logits_and_tokens(name: str, tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "model", name)
    write_gguf(folder, tmp_path / "x.gguf", "F32", "tiny")
    trained = parity.folder_logits(folder, texts())
    difference = llamacpp.compare(tmp_path / "x.gguf", tiny.tokenizer(), texts(), trained, "F32")
    assert difference.relative < 1e-3 and difference.same == 1.0


SLOW = [pytest.param(kind, marks=pytest.mark.slow) for kind in ("BF16", "Q5_1", "Q5_0", "Q4_1")]


@pytest.mark.parametrize("kind", ["F16", "Q8_0", "Q4_0", *SLOW])
def test_each_type_is_within_its_bar_and_smaller_ones_lose_more(kind: str, tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "model", "llama")
    file = write_gguf(folder, tmp_path / "x.gguf", kind, "tiny")
    exact = write_gguf(folder, tmp_path / "exact.gguf", "F32", "tiny")
    exported = parity.gguf_logits(file.path, folder, texts())
    assert parity.compare(parity.rounded_logits(folder, kind, texts()), exported, parity.EXACT).relative < 1e-6
    difference = parity.compare(parity.folder_logits(folder, texts()), exported, parity.ALLOWED[kind])
    assert 0 < difference.relative < parity.ALLOWED[kind]
    assert file.path.stat().st_size < exact.path.stat().st_size


def test_a_wrong_order_of_rows_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = model_folder(tmp_path / "model", "llama")
    monkeypatch.setattr(Tensors, "converted", lambda self, name, tensor: tensor)
    write_gguf(folder, tmp_path / "x.gguf", "Q4_0", "tiny")
    rounded = parity.rounded_logits(folder, "Q4_0", texts())
    with pytest.raises(ParityError, match="computes other logits"):
        parity.compare(rounded, parity.gguf_logits(tmp_path / "x.gguf", folder, texts()), parity.EXACT)


def test_a_tensor_without_a_place_is_an_error_and_not_left_out(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = model_folder(tmp_path / "model", "llama")
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors | {"model.layers.0.extra.weight": torch.ones(2, 2)}, folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"extra\.weight has no name in the GGUF architecture llama"):
        write_gguf(folder, tmp_path / "x.gguf", "F32", "tiny")


def test_what_a_type_cannot_express_is_an_error(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = model_folder(tmp_path / "model", "llama")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][0, 0] = 1e5
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    write_gguf(folder, tmp_path / "x.gguf", "BF16", "tiny")
    with pytest.raises(ModelError, match="above 65504"):
        write_gguf(folder, tmp_path / "y.gguf", "F16", "tiny")
    tensors["model.layers.1.mlp.up_proj.weight"][0, 0] = float("nan")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="not finite"):
        write_gguf(folder, tmp_path / "z.gguf", "BF16", "tiny")


REFUSED = {
    "a class without GGUF form": ({"architectures": ["GPTNeoXForCausalLM"]}, "no GGUF form here"),
    "a reward model": ({"architectures": ["LlamaForSequenceClassification"]}, "no place for the score head"),
    "pictures": ({"architectures": ["Gemma3ForConditionalGeneration"]}, "images or audio"),
    "dynamic scaling": ({"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, "'dynamic'"),
    "another activation": ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_models_that_llamacpp_would_compute_differently_are_refused(case: str, tmp_path: Path) -> None:
    changes, message = REFUSED[case]
    folder = model_folder(tmp_path / "model", "llama")
    config = json.loads((folder / "config.json").read_text("utf-8")) | changes
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ModelError, match=message):
        write_gguf(folder, tmp_path / "x.gguf", "F16", "tiny")
    assert not (tmp_path / "x.gguf").exists()


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("gemma2", {"query_pre_attn_scalar": 99}, "llama.cpp uses head_dim"),
        ("gemma2", {"layer_types": ["full_attention"] * 2}, "sliding and full in turn"),
        ("gemma3", {"layer_types": ["full_attention"] * 7}, "every sixth layer"),
        ("smollm3", {"no_rope_layers": [1, 1, 1, 1]}, "every fourth one"),
        ("phi3", {"rope_parameters": LONGROPE}, "not written for this family"),
    ],
)
def test_values_that_are_fixed_in_llamacpp_are_checked(
    name: str, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    folder = model_folder(tmp_path / "model", name, **changes)
    with pytest.raises(ModelError, match=message):
        write_gguf(folder, tmp_path / "x.gguf", "F16", "tiny")


def test_a_sliding_window_that_llamacpp_lacks_shortens_the_context(tmp_path: Path) -> None:
    from gguf import GGUFReader

    folder = model_folder(tmp_path / "model", "mistral", sliding_window=100)
    file = write_gguf(folder, tmp_path / "x.gguf", "F32", "tiny")
    assert "context: 100 tokens instead of 512" in file.notes[0]
    assert int(GGUFReader(file.path).fields["llama.context_length"].contents()) == 100


def test_the_families_are_those_that_are_tested() -> None:
    import transformers

    classes = set()
    for cls, _ in MODELS.values():
        config = getattr(transformers, cls)()
        classes.add(transformers.AutoModelForCausalLM._model_mapping[type(config)].__name__)
    assert classes == set(FAMILIES)
