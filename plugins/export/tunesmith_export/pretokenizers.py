"""Recognize how a byte-level BPE tokenizer splits a text before it merges bytes, by llama.cpp's name for it.

llama.cpp has these regular expressions in its code and reads only their name from the file. A wrong name would split
some texts differently without an error, so a tokenizer that is not recognized is refused.
"""

from __future__ import annotations

from typing import Any

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)"
    r"|\s+"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
_LOWER, _UPPER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]", r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BY_REGEX = {(LLAMA3, True): "llama-bpe", (LLAMA3, False): "dbrx", (QWEN2, False): "qwen2", (TEKKEN, True): "tekken"}
"""Regular expression, and whether tokens of the vocabulary are taken before merges -> llama.cpp's name."""
NORMALIZERS = (None, "NFC")
"""Normalizers of byte-level tokenizers. llama.cpp applies none; NFC changes only texts that are not in that form."""


def name_of(tokenizer: dict[str, Any]) -> str | None:
    """Return llama.cpp's name of the pre-tokenizer in the content of a tokenizer.json; None for an unknown one."""
    normalizer = tokenizer.get("normalizer")
    if (normalizer or {}).get("type") not in NORMALIZERS:
        return None
    ignore_merges = bool(tokenizer["model"].get("ignore_merges"))
    steps = _steps(tokenizer.get("pre_tokenizer"))
    kinds = [step.get("type") for step in steps]
    if not steps or kinds[-1] != "ByteLevel" or steps[-1].get("add_prefix_space"):
        return None
    bytes_use_regex = steps[-1].get("use_regex", True)
    if kinds == ["ByteLevel"] and bytes_use_regex and not ignore_merges:
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and bytes_use_regex and steps[0].get("individual_digits") and not ignore_merges:
        return "smollm"
    if kinds == ["Split", "ByteLevel"] and not bytes_use_regex:
        split = steps[0]
        if split.get("behavior") in ("Isolated", "Removed") and (split["behavior"] == "Removed") == split.get("invert"):
            return BY_REGEX.get(((split.get("pattern") or {}).get("Regex"), ignore_merges))
    return None


def _steps(pre_tokenizer: dict[str, Any] | None) -> list[dict[str, Any]]:
    if pre_tokenizer is None:
        return []
    if pre_tokenizer.get("type") == "Sequence":
        return [step for inner in pre_tokenizer.get("pretokenizers", ()) for step in _steps(inner)]
    return [pre_tokenizer]
