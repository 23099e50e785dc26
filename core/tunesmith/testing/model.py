"""Write a tiny model with random weights and its tokenizer as the files of a model folder, without a library."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tunesmith.testing.rows import WORDS

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
HIDDEN, INNER, LAYERS, HEADS, GROUPS = 32, 64, 2, 4, 2
PADDING = 13
"""Embedding rows beyond the tokenizer's vocabulary, as models have that round its size up."""


def write_model(folder: Path) -> Path:
    """Write a Llama of two layers with seeded random weights in float32, and a tokenizer with the ChatML template.

    The model has PADDING more embedding rows than the tokenizer has tokens. Return the folder.
    """
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = _write_tokenizer(folder) + PADDING
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": vocabulary, "hidden_size": HIDDEN,
        "intermediate_size": INNER, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "num_key_value_heads": GROUPS, "head_dim": HIDDEN // HEADS, "max_position_embeddings": 512,
        "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": False,
        "torch_dtype": "float32", "bos_token_id": None, "eos_token_id": SPECIAL.index("<|im_end|>"), "pad_token_id": 0,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    generator = torch.Generator().manual_seed(0)
    tensors: dict[str, Any] = {}
    for name, shape in _shapes(vocabulary).items():
        # 0.06 is three times the usual spread, so that attention to a token of another example changes the loss.
        random_ = torch.randn(shape, generator=generator)
        tensors[name] = 0.06 * random_ if len(shape) > 1 else torch.ones(shape)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def _shapes(vocabulary: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor of the model by name."""
    keys = GROUPS * HIDDEN // HEADS
    layer: dict[str, tuple[int, ...]] = {
        "self_attn.q_proj": (HIDDEN, HIDDEN), "self_attn.k_proj": (keys, HIDDEN), "self_attn.v_proj": (keys, HIDDEN),
        "self_attn.o_proj": (HIDDEN, HIDDEN), "mlp.gate_proj": (INNER, HIDDEN), "mlp.up_proj": (INNER, HIDDEN),
        "mlp.down_proj": (HIDDEN, INNER), "input_layernorm": (HIDDEN,), "post_attention_layernorm": (HIDDEN,),
    }  # fmt: skip
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, HIDDEN)}
    for number in range(LAYERS):
        shapes |= {f"model.layers.{number}.{name}.weight": shape for name, shape in layer.items()}
    return shapes | {"model.norm.weight": (HIDDEN,), "lm_head.weight": (vocabulary, HIDDEN)}


def _write_tokenizer(folder: Path) -> int:
    """Write a byte-level BPE tokenizer that knows the words of `rows`, and return the number of its tokens."""
    letters, merges = _bytes(), []
    tokens = [*SPECIAL, *letters]
    for word in WORDS:
        start = "Ġ"  # the letter of a space
        for letter in word:
            if start + letter not in tokens:
                merges.append([start, letter])
                tokens.append(start + letter)
            start += letter
    added = [
        {"id": number, "content": text, "special": True, "normalized": False, "single_word": False, "lstrip": False,
         "rstrip": False}
        for number, text in enumerate(SPECIAL)
    ]  # fmt: skip
    levels = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    model = {
        "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
        "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
        "vocab": {token: number for number, token in enumerate(tokens)}, "merges": merges,
    }  # fmt: skip
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
        "pre_tokenizer": levels, "post_processor": None, "decoder": levels, "model": model,
    }  # fmt: skip
    roles = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **roles, "chat_template": TEMPLATE}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return len(tokens)


def _bytes() -> list[str]:
    """Return the letter that stands for each byte in byte-level BPE: printable bytes themselves, others shifted up."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    shifted = iter(range(256, 512))
    return [chr(byte if byte in printable else next(shifted)) for byte in range(256)]
