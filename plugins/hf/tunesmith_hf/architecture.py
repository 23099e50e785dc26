"""Check config.json of a model, and compare it with the headers of its weights, without torch.

Only headers are read, so a model of 100 GB takes milliseconds. The shape of every other weight is compared when the
model is loaded (`loaded.check`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tunesmith import ModelError
from tunesmith.files.untrusted import TensorHeader, read_json

SIZES = {
    "hidden_size", "n_embd", "d_model", "vocab_size", "num_hidden_layers", "n_layer", "n_layers", "num_layers",
    "num_attention_heads", "n_head", "n_heads", "num_key_value_heads", "num_heads", "intermediate_size",
}  # fmt: skip
"""Keys of config.json that are positive integers, or in some architectures one for each layer."""
WIDTHS, LAYERS = ("hidden_size", "n_embd"), ("num_hidden_layers", "n_layer")
PROBABILITY = re.compile(r".*(dropout|pdrop|layerdrop|dropout_prob|dropout_rate|dropout_p)")
LATER_LAYERS = re.compile(r".*(nextn|mtp).*layers")
"""Keys that count layers which predict further tokens. They are in the files, but not among num_hidden_layers."""
BODY = r"(?:(?:model|language_model|transformer|gpt_neox|backbone|text_model)\.)*"
LAYER = re.compile(rf"({BODY}(?:layers|h|blocks))\.(\d+)\.")
EMBEDDINGS = re.compile(rf"{BODY}(?:embed_tokens|wte|embed_in|word_embeddings)\.weight")
EXTRA_ROWS = 64
"""Rows that embeddings may have beyond vocab_size. Llama 3.2 Vision has 8 of them."""
SCALED = re.compile(r"[IU]\d+|BOOL|F8.*|F6.*|F4")
"""Types of numbers that are weights only together with the scales of a quantization."""


def check_config(folder: Path, where: str, end_is_named: bool = False) -> dict[str, Any]:
    """Return config.json of a folder. Raise ModelError, with the key, for a value that no model can have.

    With `end_is_named`, the YAML names the end token, which replaces the one of the files.
    """
    path, generation = folder / "config.json", folder / "generation_config.json"
    config = read_json(path, where)
    nested = config.get("text_config")
    for prefix, values in {"": config, "text_config.": nested if isinstance(nested, dict) else {}}.items():
        for key, reason in _wrong_values(values):
            message, help = f"{path}: {prefix}{key} {reason}", "copy the original config.json of the model again"
            raise ModelError(message, where=where, help=help, code="model-config")
    tokens = _text(config).get("vocab_size")
    ends = {path: config, generation: read_json(generation, where) if generation.is_file() else {}}
    for file, values in ends.items() if type(tokens) is int and not end_is_named else ():
        end = values.get("eos_token_id")
        for number in end if isinstance(end, list) else [end]:
            if type(number) is int and not 0 <= number < tokens:
                message = f"{file}: eos_token_id is {number}, but the model has {tokens:,} tokens (vocab_size)"
                help = "write the id of the tokenizer's end token there, or name it: special_tokens: {eos_token: ...}"
                raise ModelError(message, where=where, help=help, code="model-config")
    return config


def _wrong_values(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each key with a value that no model can have, and what it must be."""
    for key, value in config.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if key in SIZES and value is not None:
            items = value if isinstance(value, list) and value else [value]
            if not all(type(item) is int and item > 0 for item in items):
                yield key, _wrong_size(value, number)
        elif key == "pad_token_id" and number and value >= config.get("vocab_size", math.inf):
            yield key, f"must be less than vocab_size ({config['vocab_size']}), got {value}"
        elif number and PROBABILITY.fullmatch(key) and not 0 <= value <= 1:
            yield key, f"must be between 0 and 1, got {value}"
    heads, groups = config.get("num_attention_heads"), config.get("num_key_value_heads")
    if type(heads) is int and type(groups) is int and groups > 0 and heads % groups:
        yield "num_attention_heads", f"must be a multiple of num_key_value_heads ({groups}), got {heads}"


def _wrong_size(value: Any, number: bool) -> str:
    text = str(value)[:40]
    return f"must be a positive integer, got {text if number else f'{type(value).__name__} {text!r}'}"


def check_headers(folder: Path, config: Mapping[str, Any], weights: Mapping[str, TensorHeader], where: str) -> None:
    """Compare the weights of a folder with its config.json. Raise ModelError for the first that differs."""

    def wrong(problem: str, help: str) -> ModelError:
        return ModelError(f"{folder}: {problem}", where=where, help=help, code="weights")

    complete = "copy the complete files of the model again: config.json and weights are of different models"
    text = _text(config)
    for name, header in weights.items():
        if name.endswith(".weight") and SCALED.fullmatch(header.dtype) and not config.get("quantization_config"):
            problem = f"{name} is of type {header.dtype}, but config.json has no quantization_config that scales it"
            raise wrong(problem, "use the bfloat16 model that the weights were quantized from")
    layers = _first(text, LAYERS)
    if text.get("num_layers", layers) != layers:  # LongCat counts each of its layers twice
        layers = None
    numbers: dict[str, set[int]] = {}
    for match in filter(None, map(LAYER.match, weights)):
        numbers.setdefault(match[1], set()).add(int(match[2]))
    if len(numbers) == 1 and type(layers) is int:
        ((place, indices),) = numbers.items()
        later = sum(n for key, n in text.items() if LATER_LAYERS.fullmatch(key) and type(n) is int)
        if not layers <= max(indices) + 1 <= layers + later:
            key = next(key for key in LAYERS if text.get(key) is not None)
            problem = f"config.json has {key}: {layers}, but the weights have {max(indices) + 1} layers ({place})"
            raise wrong(problem, complete)
    embeddings = [name for name in weights if EMBEDDINGS.fullmatch(name)]
    tokens, width = text.get("vocab_size"), text.get("word_embed_proj_dim") or _first(text, WIDTHS)
    if len(embeddings) == 1 and type(tokens) is int and type(width) is int and not config.get("quantization_config"):
        shape = weights[embeddings[0]].shape
        if len(shape) != 2 or shape[1] != width or not tokens <= shape[0] <= tokens + EXTRA_ROWS:
            problem = f"{embeddings[0]} has shape {list(shape)}, but config.json has vocab_size: {tokens} and "
            raise wrong(f"{problem}{next(k for k in WIDTHS if text.get(k))}: {width}", complete)


def _text(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the part of a config that describes the language model."""
    nested = config.get("text_config")
    return nested if isinstance(nested, dict) else config


def _first(config: Mapping[str, Any], keys: tuple[str, ...]) -> Any:
    return next((config[key] for key in keys if config.get(key) is not None), None)
