"""Tokenize rendered texts, and assign a loss weight and its reason to each token."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from tunesmith import ModelError


class Tokens(NamedTuple):
    """A text as tokens: ids [L], weights [L], and notes (end, why the tokens up to it are trained or masked)."""

    ids: Any
    weights: Any
    notes: list[tuple[int, str]]


def check_fast(tokenizer: Any) -> None:
    """Raise ModelError for a tokenizer without offsets."""
    if not getattr(tokenizer, "is_fast", True):
        help = "use a tokenizer with a tokenizer.json; transformers converts most others"
        raise ModelError("chat_template needs a fast tokenizer, which reports the offsets of its tokens", help=help)


def encode(tokenizer: Any, texts: list[str]) -> Sequence[Any]:
    """Return the tokenizer's encodings of texts, of which there must be at least one."""

    def call(batch: list[str]) -> Sequence[Any]:
        # verbose=False: sequence_len decides about long texts, not the tokenizer's maximum length
        options = {"return_attention_mask": False, "return_token_type_ids": False, "verbose": False}
        return tokenizer(batch, add_special_tokens=False, **options).encodings

    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return call(texts)
    # The first call sets up the backend. Calling it directly is faster, because it builds no Python lists for each text
    first = call(texts[:1])[0]
    encodings = backend.encode_batch(texts, add_special_tokens=False)
    return encodings if encodings[0].ids == first.ids else call(texts)


def weighted(
    encoding: Any, regions: Iterable[tuple[int, tuple[str, float]]], special: frozenset[int] = frozenset()
) -> Tokens:
    """Return the tokens of a text with their loss weights. A token that overlaps trained text is trained.

    encoding: the encoding of the text, with L tokens. regions: (end in characters, (reason, loss weight)) of each
    region. special: ids of tokens that never include the space before them.
    """
    ids = encoding.ids
    weights = np.zeros(len(ids), np.float32)
    notes: list[tuple[int, str]] = []
    position = begin = 0
    for end, (reason, weight) in regions:
        if end <= begin:
            continue
        stop = _border(encoding, end)
        if stop is None and weight:
            stop = _first_after(ids, encoding, end, position, special)
        elif stop is None:
            # A token that reaches into the next region belongs to it, because that region may be trained
            stop = bisect_right(range(len(ids)), end, position, key=lambda token: encoding.token_to_chars(token)[1])
        if weight:
            weights[position:stop] = weight
        if stop > position:
            notes.append((stop, reason))
            position = stop
        begin = end
    return Tokens(np.fromiter(ids, np.int32, len(ids)), weights, notes)


# Offsets never decrease, so a border can be found by bisection. Only the offsets that are needed are read from the
# encoding: a list of all of them takes longer than the rest of this module.


def _border(encoding: Any, end: int) -> int | None:
    """Return the index of the token that begins at character `end`, or None if no token border is there."""
    token = encoding.char_to_token(end)
    if not token or encoding.token_to_chars(token)[0] != end:
        return None
    start, stop = encoding.token_to_chars(token - 1)
    return token if start < stop == end else None


def _first_after(ids: list[int], encoding: Any, end: int, position: int, special: frozenset[int]) -> int:
    """Return the index, at least `position`, of the first token without any text before character `end`."""
    offsets = encoding.token_to_chars
    index = bisect_left(range(len(ids)), end, position, key=lambda token: offsets(token)[0])
    covered = offsets(index - 1)[1] if index else 0
    # Byte-level tokenizers may trim a leading space from the offsets, so a gap belongs to the token after it
    if covered < end and index < len(ids) and ids[index] not in special:
        return index + 1
    return index
