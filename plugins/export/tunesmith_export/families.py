"""The model families that a GGUF file can be written for: their metadata, and how their tensors differ in llama.cpp.

llama.cpp reads the name and the sizes of an architecture from the metadata. Everything else is fixed in its code. A
config with other values would give wrong results there, so it is refused here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunesmith import ModelError

if TYPE_CHECKING:
    from gguf import GGUFWriter

SUPPORTED = "Llama, Mistral, Qwen2, Qwen3, Gemma, Gemma 2, Gemma 3 (text), Phi-3, SmolLM"


@dataclass(frozen=True)
class Family:
    """How the models of one class of transformers are written.

    Args:
        architecture: the name of the architecture in GGUF.
        permuted: the rows of q and k are ordered as in Meta's files, where the two halves of a rotated pair are
            neighbors. transformers keeps the halves apart.
        norm_offset: what llama.cpp expects to be added to the weights of norms; transformers adds it in the forward.
        why_refused: return why a config can't be written; None if it can.
        unread: fields of the config that transformers does not read from GGUF. They are given to it for the comparison.
        readable: transformers can load the file, so the export can be compared with the model.
        tied: the head is always the embedding matrix.
    """

    architecture: str
    permuted: bool = False
    norm_offset: float = 0.0
    why_refused: Callable[[Any], str | None] = lambda config: None
    unread: tuple[str, ...] = ()
    readable: bool = True
    tied: bool = False


def head_dim(config: Any) -> int:
    """Return the size of an attention head."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def rope(config: Any, layer_type: str = "full_attention") -> dict[str, Any]:
    """Return the parameters of the rotary embedding, for models whose layers differ: of one type of layers."""
    parameters = dict(getattr(config, "rope_parameters", None) or {})
    return dict(parameters.get(layer_type) or {}) if layer_type in parameters else parameters


def _usual(config: Any) -> str | None:
    kind = rope(config).get("rope_type", "default")
    if kind not in ("default", "linear", "llama3", "yarn"):
        return f"rotary embeddings of the type {kind!r} are not written"
    if getattr(config, "hidden_act", "silu") not in ("silu", "swish"):
        return f"llama.cpp computes silu in this family, and the model has hidden_act {config.hidden_act!r}"
    return None


def _unscaled(config: Any) -> str | None:
    kind = rope(config).get("rope_type", "default")
    return None if kind == "default" else f"rotary embeddings of the type {kind!r} are not written for this family"


def _gemma2(config: Any) -> str | None:
    if config.query_pre_attn_scalar != head_dim(config):
        return f"query_pre_attn_scalar is {config.query_pre_attn_scalar}, and llama.cpp uses head_dim"
    if list(config.layer_types) != [("sliding", "full")[i % 2] + "_attention" for i in range(config.num_hidden_layers)]:
        return "layer_types is not sliding and full in turn, which is fixed in llama.cpp"
    return _unscaled(config)


def _gemma3(config: Any) -> str | None:
    expected = [("full" if i % 6 == 5 else "sliding") + "_attention" for i in range(config.num_hidden_layers)]
    if config.query_pre_attn_scalar != head_dim(config):
        return f"query_pre_attn_scalar is {config.query_pre_attn_scalar}, and llama.cpp uses head_dim"
    if list(config.layer_types) != expected:
        return "layer_types does not have full attention in every sixth layer, which is fixed in llama.cpp"
    if rope(config, "sliding_attention").get("rope_theta", 10000.0) != 10000.0:
        return "the sliding layers have another rope_theta than 10000, which is fixed in llama.cpp"
    if getattr(config, "attn_logit_softcapping", None) or getattr(config, "final_logit_softcapping", None):
        return "it caps logits, which llama.cpp does not do in this family"
    kind = rope(config).get("rope_type", "default")
    return None if kind in ("default", "linear") else f"rotary embeddings of the type {kind!r} are not written"


def _smollm3(config: Any) -> str | None:
    if list(config.no_rope_layers) != [int((i + 1) % 4 != 0) for i in range(config.num_hidden_layers)]:
        return "layers without rotary embeddings are not every fourth one, which is fixed in llama.cpp"
    return _usual(config)


FAMILIES = {
    "LlamaForCausalLM": Family(
        "llama", permuted=True, why_refused=_usual, unread=("rope_parameters", "attention_bias", "mlp_bias")
    ),
    "MistralForCausalLM": Family("llama", permuted=True, why_refused=_usual, unread=("rope_parameters",)),
    "Qwen2ForCausalLM": Family("qwen2", why_refused=_usual, unread=("rope_parameters",)),
    "Qwen3ForCausalLM": Family("qwen3", why_refused=_usual, unread=("rope_parameters", "head_dim")),
    "GemmaForCausalLM": Family("gemma", norm_offset=1.0, why_refused=_unscaled, readable=False, tied=True),
    "Gemma2ForCausalLM": Family(
        "gemma2", norm_offset=1.0, why_refused=_gemma2, tied=True,
        unread=("attn_logit_softcapping", "final_logit_softcapping", "query_pre_attn_scalar"),
    ),
    "Gemma3ForCausalLM": Family(
        "gemma3", norm_offset=1.0, why_refused=_gemma3, tied=True,
        unread=("rope_parameters", "query_pre_attn_scalar"),
    ),
    "Phi3ForCausalLM": Family("phi3", why_refused=_unscaled, unread=("rope_parameters", "sliding_window")),
    "SmolLM3ForCausalLM": Family("smollm3", permuted=True, why_refused=_smollm3, readable=False),
}  # fmt: skip
"""Class of transformers -> how it is written. Those that transformers can't read back need --no-verify."""


def family_of(config: Any) -> Family:
    """Return the family of a config. Raises ModelError for one that can't be written, with the reason."""
    name = str((config.architectures or ["(no architecture)"])[0])
    if name not in FAMILIES:
        what = "models with this class have no GGUF form here"
        if name.endswith(("ForSequenceClassification", "ForTokenClassification")):
            what = "llama.cpp has no place for the score head of this class; serve the merged model with vLLM instead"
        elif name.endswith("ForConditionalGeneration"):
            what = "models with images or audio are not written; the language model alone would be another model"
        raise ModelError(f"{name} can't be exported to GGUF: {what}", code="export", help=f"supported: {SUPPORTED}")
    if reason := FAMILIES[name].why_refused(config):
        raise ModelError(f"this {name} can't be exported to GGUF: {reason}", code="export")
    return FAMILIES[name]


def write_metadata(writer: GGUFWriter, config: Any, family: Family, rows: int) -> list[str]:
    """Add the sizes of a model to a GGUF file, and return notes for the user.

    Args:
        writer: the file.
        config: the config of transformers.
        family: the family of the model.
        rows: the number of rows of the embeddings.
    """
    notes = []
    context = int(config.max_position_embeddings)
    window = getattr(config, "sliding_window", None)
    if family.architecture in ("gemma2", "gemma3"):
        writer.add_sliding_window(window)
    elif window and window < context:
        notes.append(f"context: {window:,} tokens instead of {context:,}, because llama.cpp has no sliding window here")
        context = int(window)
    writer.add_context_length(context)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(rows)
    size = head_dim(config)
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_rope_dimension_count(int(size * float(rope(config).get("partial_rotary_factor") or 1.0)))
    writer.add_rope_freq_base(float(rope(config).get("rope_theta") or 10000.0))
    if family.architecture == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    _write_scaling(writer, rope(config))
    return notes


def _write_scaling(writer: GGUFWriter, parameters: dict[str, Any]) -> None:
    """Add linear and YaRN scaling of rotary embeddings. That of Llama 3 is a tensor: see `rope_factors`."""
    from gguf import RopeScalingType

    kind = parameters.get("rope_type", "default")
    if kind not in ("linear", "yarn"):
        return
    writer.add_rope_scaling_type(RopeScalingType.LINEAR if kind == "linear" else RopeScalingType.YARN)
    writer.add_rope_scaling_factor(float(parameters["factor"]))
    if kind == "yarn":
        writer.add_rope_scaling_orig_ctx_len(int(parameters["original_max_position_embeddings"]))


def rope_factors(config: Any) -> list[float] | None:
    """Return what the frequencies of Llama 3's rotary embedding are divided by; None for another embedding.

    Long wavelengths are divided by `factor`, short ones by 1, and those between by an interpolation.
    """
    import math

    parameters = rope(config)
    if parameters.get("rope_type") != "llama3":
        return None
    size, base, factor = head_dim(config), float(parameters["rope_theta"]), float(parameters["factor"])
    low, high = float(parameters["low_freq_factor"]), float(parameters["high_freq_factor"])
    old = float(parameters["original_max_position_embeddings"])
    factors = []
    for i in range(0, size, 2):
        wavelength = 2 * math.pi * base ** (i / size)
        smooth = min(max((old / wavelength - low) / (high - low), 0.0), 1.0)
        factors.append(1 / ((1 - smooth) / factor + smooth))
    return factors
