"""From rendered texts to tokens, their loss weights, and the reasons for these."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from tunesmith import ModelError


class Tokens(NamedTuple):
    """A text as tokens: ids [L], weights [L], and (end offset, why its tokens are trained or masked)."""

    ids: Any
    weights: Any
    notes: list[tuple[int, str]]


def check_fast(tokenizer: Any) -> None:
    """Raise ModelError for a tokenizer without offsets."""
    if not getattr(tokenizer, "is_fast", True):
        help = "tokenizers in tokenizer.json are; transformers converts most others"
        raise ModelError("chat_template needs a fast tokenizer, one that knows where its tokens stand", help=help)


def encode(tokenizer: Any, texts: list[str]) -> Sequence[Any]:
    """The encodings that the tokenizer gives of texts, of which there is at least one."""

    def whole(some: list[str]) -> Sequence[Any]:
        # verbose=False: the tokenizer's warning about its maximum length is not about what is trained
        options = {"return_attention_mask": False, "return_token_type_ids": False, "verbose": False}
        return tokenizer(some, add_special_tokens=False, **options).encodings

    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return whole(texts)
    # Its own call sets up the backend; asked directly, that makes no lists of everything for each text
    first = whole(texts[:1])[0]
    encodings = backend.encode_batch(texts, add_special_tokens=False)
    return encodings if encodings[0].ids == first.ids else whole(texts)


def weighted(
    encoding: Any, regions: Iterable[tuple[int, tuple[str, float]]], special: frozenset[int] = frozenset()
) -> Tokens:
    """From the encoding of a text, L tokens, and its regions: up to where, why, and the loss weight.

    A token that overlaps trained text is trained. `special`: ids of tokens that never swallow the space before them.
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
            # A token that reaches into the next region is left to it: it may be trained
            stop = bisect_right(range(len(ids)), end, position, key=lambda token: encoding.token_to_chars(token)[1])
        if weight:
            weights[position:stop] = weight
        if stop > position:
            notes.append((stop, reason))
            position = stop
        begin = end
    return Tokens(np.fromiter(ids, np.int32, len(ids)), weights, notes)


# Offsets never go backwards, so a border is found by bisection, if it is not where one would look first. Only those
# asked for are taken out of the encoding: a list of all takes longer than everything else here.


def _border(encoding: Any, end: int) -> int | None:
    """Index of the first token after character `end`, where one token ends exactly there and the next begins."""
    token = encoding.char_to_token(end)
    if not token or encoding.token_to_chars(token)[0] != end:
        return None
    start, stop = encoding.token_to_chars(token - 1)
    return token if start < stop == end else None


def _first_after(ids: list[int], encoding: Any, end: int, position: int, special: frozenset[int]) -> int:
    """Index, from `position` on, of the first token that has nothing of the text before `end`."""
    offsets = encoding.token_to_chars
    index = bisect_left(range(len(ids)), end, position, key=lambda token: offsets(token)[0])
    covered = offsets(index - 1)[1] if index else 0
    # Byte-level tokenizers may trim the leading space of a token from its offsets: the gap before it is its own
    if covered < end and index < len(ids) and ids[index] not in special:
        return index + 1
    return index
