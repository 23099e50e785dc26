"""Read the built-in chat templates by name, and list their tokens. Imports neither torch nor jinja2."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path

_FOLDER = Path(__file__).parent / "templates"

NAMES = tuple(sorted(path.stem for path in _FOLDER.glob("*.jinja")))
"""The names of all built-in templates, in alphabetical order."""


def read(name: str) -> str:
    """Return the Jinja text of a named template. Raise KeyError for a name that is not in NAMES."""
    if name not in NAMES:
        raise KeyError(name)
    return (_FOLDER / f"{name}.jinja").read_text("utf-8")


def missing_tokens(name: str, vocabulary: Container[str]) -> tuple[str, ...]:
    """Return the tokens of a template that are missing in a vocabulary, end tokens first. Raise KeyError."""
    return tuple(token for token in END_TOKENS[name] + NEEDS[name] if token not in vocabulary)


END_TOKENS: dict[str, tuple[str, ...]] = {
    "alpaca": (),
    "aya": ("<|END_OF_TURN_TOKEN|>",),
    "chatml": ("<|im_end|>",),
    "cohere": ("<|END_OF_TURN_TOKEN|>",),
    "command_a": ("<|END_OF_TURN_TOKEN|>",),
    "command_a_rag": ("<|END_OF_TURN_TOKEN|>",),
    "command_a_tool_use": ("<|END_OF_TURN_TOKEN|>",),
    "deepseek_v2": (),
    "deepseek_v3": ("<｜end▁of▁sentence｜>",),
    "exaone": ("[|endofturn|]",),
    "exaone4": ("[|endofturn|]",),
    "falcon_h1": ("<|im_end|>",),
    "gemma": ("<end_of_turn>",),
    "gemma3": ("<end_of_turn>",),
    "gemma3n": ("<end_of_turn>",),
    "gemma4": ("<turn|>", "<|tool_response>"),
    "gemma4_unified": ("<turn|>", "<|tool_response>"),
    "jamba": ("<|eom|>",),
    "llama3": ("<|eot_id|>",),
    "llama3_2_vision": ("<|eot_id|>",),
    "llama4": ("<|eot|>",),
    "llava": (),
    "metharme": (),
    "mistral_v1": (),
    "mistral_v2v3": (),
    "mistral_v3_tekken": (),
    "mistral_v7_tekken": (),
    "nemotron_h": ("<|im_end|>",),
    "phi_3": ("<|end|>",),
    "phi_35": ("<|end|>",),
    "phi_4": ("<|im_end|>",),
    "pixtral": (),
    "qwen2_vl": ("<|im_end|>",),
    "qwen3": ("<|im_end|>",),
    "qwen3_5": ("<|im_end|>",),
    "qwen_25": ("<|im_end|>",),
}
"""Tokens that end a turn of the model. The first ends an answer. Empty if the tokenizer's end token is used."""

_COHERE = ("<|START_OF_TURN_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>")
_COMMAND_A = (*_COHERE, "<|SYSTEM_TOKEN|>", "<|START_RESPONSE|>", "<|END_RESPONSE|>")

NEEDS: dict[str, tuple[str, ...]] = {
    "alpaca": (),
    "aya": _COHERE,
    "chatml": ("<|im_start|>",),
    "cohere": _COHERE,
    "command_a": _COMMAND_A,
    "command_a_rag": _COMMAND_A,
    "command_a_tool_use": _COMMAND_A,
    "deepseek_v2": (),
    "deepseek_v3": ("<｜User｜>", "<｜Assistant｜>"),
    "exaone": ("[|system|]", "[|user|]", "[|assistant|]"),
    "exaone4": ("[|user|]", "[|assistant|]"),
    "falcon_h1": ("<|im_start|>",),
    "gemma": ("<start_of_turn>",),
    "gemma3": ("<start_of_turn>",),
    "gemma3n": ("<start_of_turn>",),
    "gemma4": ("<|turn>",),
    "gemma4_unified": ("<|turn>", "<|channel>", "<channel|>"),
    "jamba": ("<|startoftext|>", "<|bom|>", "<|system|>", "<|user|>", "<|assistant|>"),
    "llama3": ("<|start_header_id|>", "<|end_header_id|>"),
    "llama3_2_vision": ("<|start_header_id|>", "<|end_header_id|>"),
    "llama4": ("<|header_start|>", "<|header_end|>"),
    "llava": (),
    "metharme": ("<|system|>", "<|user|>", "<|model|>"),
    "mistral_v1": (),
    "mistral_v2v3": ("[INST]", "[/INST]"),
    "mistral_v3_tekken": ("[INST]", "[/INST]"),
    "mistral_v7_tekken": ("[INST]", "[/INST]"),
    "nemotron_h": ("<|im_start|>",),
    "phi_3": ("<|user|>", "<|assistant|>"),
    "phi_35": ("<|user|>", "<|assistant|>"),
    "phi_4": ("<|im_start|>", "<|im_sep|>"),
    "pixtral": ("[INST]", "[/INST]"),
    "qwen2_vl": ("<|im_start|>",),
    "qwen3": ("<|im_start|>",),
    "qwen3_5": ("<|im_start|>",),
    "qwen_25": ("<|im_start|>",),
}
"""Further special tokens of every conversation, without those for tools, reasoning or images."""
