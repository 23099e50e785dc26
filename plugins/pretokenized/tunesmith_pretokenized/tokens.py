"""Turn a row of token ids into an example."""

from __future__ import annotations

from typing import Any

import numpy as np

from tunesmith import Example, Row

MASKED = -100
"""The label of a token that is not trained, as in torch's cross-entropy."""
COLUMNS = ("input_ids", "attention_mask", "labels")


def row_to_example(row: Row, vocabulary: int) -> Example:
    """Return the tokens of a row as an example. A token is trained unless its label is -100.

    vocabulary: the number of token ids. The column attention_mask is optional; leading and trailing tokens with the
    value 0 are padding and are removed. Raise DataError for ids outside the vocabulary, columns of unequal lengths,
    labels that are neither -100 nor the id at the same index, and padding that is trained or between other tokens.
    """
    ids = _integers(row, "input_ids")
    if not len(ids):
        raise row.error("input_ids", "has no tokens")
    outside = np.flatnonzero((ids < 0) | (ids >= vocabulary))
    if len(outside):
        help = "use the tokenizer that the rows were made with, including its added tokens"
        message = f"[{outside[0]}] is {ids[outside[0]]}, but the tokenizer has only ids from 0 to {vocabulary - 1:,}"
        raise row.error("input_ids", message, help)
    labels = _integers(row, "labels")
    mask = _integers(row, "attention_mask") if row.get("attention_mask") is not None else np.ones(len(ids), np.int64)
    for name, column in (("labels", labels), ("attention_mask", mask)):
        if len(column) != len(ids):
            raise row.error(name, f"has {len(column)} entries, but input_ids has {len(ids)}")
    mismatches = np.flatnonzero((labels != MASKED) & (labels != ids))
    if len(mismatches):
        at = mismatches[0]
        help = "do not shift labels: each is the id of its own token, and the method shifts them"
        raise row.error("labels", f"[{at}] must be {MASKED} or input_ids[{at}], {ids[at]}, got {labels[at]}", help)
    unpadded = _unpadded(row, mask, labels)
    ids, trained = ids[unpadded], labels[unpadded] != MASKED
    return Example.text(ids, trained.astype(np.float32), notes=_notes(trained))


def _integers(row: Row, column: str) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return a column of integers [L]. Raise DataError for other values."""
    values = row.require(column, list)
    if set(map(type, values)) - {int}:
        index, value = next((i, v) for i, v in enumerate(values) if type(v) is not int)
        kind = "null" if value is None else type(value).__name__
        raise row.error(column, f"[{index}] must be an integer, got {kind}")
    try:
        return np.array(values, np.int64)
    except OverflowError:
        raise row.error(column, "has a number with more than 64 bits") from None


def _unpadded(row: Row, mask: Any, labels: Any) -> slice:
    """Return the slice of a row without its padding. Raise DataError for an invalid mask."""
    invalid = np.flatnonzero((mask != 0) & (mask != 1))
    if len(invalid):
        raise row.error("attention_mask", f"[{invalid[0]}] must be 0 or 1, got {mask[invalid[0]]}")
    tokens = np.flatnonzero(mask)
    if not len(tokens):
        raise row.error("attention_mask", "is 0 for all tokens")
    unpadded = slice(int(tokens[0]), int(tokens[-1]) + 1)
    if not mask[unpadded].all():
        gap = unpadded.start + int(np.flatnonzero(mask[unpadded] == 0)[0])
        raise row.error("attention_mask", f"[{gap}] is 0 between tokens that are not padding")
    padding = np.flatnonzero((mask == 0) & (labels != MASKED))
    if len(padding):
        raise row.error(
            "labels", f"[{padding[0]}] trains a token that is padding in attention_mask", "write -100 there"
        )
    return unpadded


def _notes(trained: Any) -> list[tuple[int, str]]:
    """Return the notes: (end, label) of each span of trained or masked tokens."""
    ends = [*(np.flatnonzero(np.diff(trained)) + 1).tolist(), len(trained)]
    return [(end, "label" if trained[end - 1] else f"label {MASKED}") for end in ends]
