"""Texts to examples that are trained on every token."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from tunesmith import Example, ModelError, Row

BATCH = 256
"""Rows of one tokenizer call: enough to use its threads, few enough to stay lazy."""


def texts_to_examples(tokenizer: Any, rows: Iterable[Row], column: str) -> Iterator[Example]:
    """One example for each row, in order: the tokenizer's own special tokens, the text, and one end token.

    Long texts stay whole: the core cuts them (`excess_length_strategy`). Raises DataError for a row without the
    column, ModelError for a tokenizer without an end token.
    """
    eos = tokenizer.eos_token_id
    if eos is None:
        help = "name one of its tokens: special_tokens: {eos_token: ...}"
        raise ModelError("the tokenizer has no end token, so a model could not learn where a text ends", help=help)
    rest = iter(rows)
    while batch := list(islice(rest, BATCH)):
        # verbose=False: the tokenizer's warning about its maximum length is not about what is trained
        encoded = tokenizer(
            [row.require(column) for row in batch],
            add_special_tokens=True,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
        for ids in encoded["input_ids"]:
            if not ids or ids[-1] != eos:
                ids.append(eos)
            yield Example.text(ids)
