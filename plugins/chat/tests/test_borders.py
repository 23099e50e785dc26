"""Tokens equal the tokenizer's, and the borders of trained text equal those computed from all offsets."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
from tunesmith_chat.tokens import encode, weighted

PIECES = ["the", " the", "he ", " ", "  ", "\n", "🦆", "é", "x", "<|im_end|>", "<|im_start|>", " <|end|>"]


def expected(ids: list[int], offsets: list[tuple[int, int]], regions: list[Any], special: Any) -> tuple[Any, Any]:
    """Return weights and notes, computed from the offsets of every token."""
    weights = np.zeros(len(ids), np.float32)
    notes = []
    position = begin = 0
    for end, (reason, weight) in regions:
        if end <= begin:
            continue
        if weight:
            stop = next((i for i, (start, _) in enumerate(offsets) if start >= end), len(ids))
            covered = offsets[stop - 1][1] if stop else 0
            stop += covered < end and stop < len(ids) and ids[stop] not in special
            weights[position:stop] = weight
        else:
            stop = sum(1 for _, last in offsets if last <= end)
        if stop > position:
            notes.append((stop, reason))
            position = stop
        begin = end
    return weights, notes


def test_borders_equal_those_computed_from_all_offsets(make_bench: Any) -> None:
    tokenizer = make_bench().run.tokenizer
    special = frozenset(tokenizer.all_special_ids)
    draw = random.Random(0)
    for _ in range(400):
        text = "".join(draw.choices(PIECES, k=draw.randint(1, 12)))
        ends = [*sorted(draw.choices(range(len(text) + 1), k=draw.randint(0, 5))), len(text)]
        regions = [(end, (f"to {end}", draw.choice([0.0, 0.5, 1.0]))) for end in ends]
        encoding = tokenizer([text], add_special_tokens=False).encodings[0]
        tokens = weighted(encoding, regions, special)
        weights, notes = expected(encoding.ids, encoding.offsets, regions, special)
        assert (tokens.weights.tolist(), tokens.notes) == (weights.tolist(), notes), (text, regions)


class Shouting:
    """A tokenizer whose call returns different tokens than its backend."""

    def __init__(self, tokenizer: Any):
        self.tokenizer, self.backend_tokenizer = tokenizer, tokenizer.backend_tokenizer

    def __call__(self, texts: list[str], **options: Any) -> Any:
        return self.tokenizer([text.upper() for text in texts], **options)


def test_tokens_equal_those_of_the_tokenizers_call(make_bench: Any) -> None:
    tokenizer = make_bench().run.tokenizer
    tokenizer.backend_tokenizer.enable_truncation(2)
    texts = ["the end", "a<|im_end|>", ""]
    assert [encoding.ids for encoding in encode(tokenizer, texts)] == tokenizer(texts)["input_ids"]
    shouting = Shouting(tokenizer)
    assert [encoding.ids for encoding in encode(shouting, texts)] == shouting(texts)["input_ids"]
    del shouting.backend_tokenizer
    assert [encoding.ids for encoding in encode(shouting, texts)] == shouting(texts)["input_ids"]
