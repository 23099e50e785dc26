"""A row of token ids to an example."""

from __future__ import annotations

from typing import Any

import numpy as np

from tunesmith import Example, Row

MASKED = -100
"""The label of a token that is not trained, as in torch's cross-entropy."""
COLUMNS = ("input_ids", "attention_mask", "labels")


def row_to_example(row: Row, vocabulary: int) -> Example:
    """The tokens of a row, trained where their label is not -100.

    attention_mask may be missing; where it is 0, at the beginning or the end, padding is cut off. Raises DataError for
    ids outside the vocabulary, columns of unequal lengths, labels that are neither -100 nor the id at their place, and
    padding that is trained or stands within the row.
    """
    ids = _integers(row, "input_ids")
    if not len(ids):
        raise row.error("input_ids", "has no tokens")
    outside = np.flatnonzero((ids < 0) | (ids >= vocabulary))
    if len(outside):
        help = "the rows were made by another tokenizer, or with tokens that this one lacks"
        message = f"[{outside[0]}] is {ids[outside[0]]}, which is no id: the tokenizer has {vocabulary:,}"
        raise row.error("input_ids", message, help)
    labels = _integers(row, "labels")
    mask = _integers(row, "attention_mask") if row.get("attention_mask") is not None else np.ones(len(ids), np.int64)
    for name, column in (("labels", labels), ("attention_mask", mask)):
        if len(column) != len(ids):
            raise row.error(name, f"has {len(column)} entries, and input_ids has {len(ids)}")
    strange = np.flatnonzero((labels != MASKED) & (labels != ids))
    if len(strange):
        at = strange[0]
        help = "labels stand at their own tokens; a method moves them by one itself"
        raise row.error("labels", f"[{at}] is {labels[at]}, neither {MASKED} nor input_ids[{at}], {ids[at]}", help)
    kept = _kept(row, mask, labels)
    ids, trained = ids[kept], labels[kept] != MASKED
    return Example.text(ids, trained.astype(np.float32), notes=_notes(trained))


def _integers(row: Row, column: str) -> np.ndarray[Any, np.dtype[np.int64]]:
    """A column of whole numbers [L]."""
    values = row.require(column, list)
    if set(map(type, values)) - {int}:
        index, value = next((i, v) for i, v in enumerate(values) if type(v) is not int)
        kind = "null" if value is None else type(value).__name__
        raise row.error(column, f"[{index}] is {kind}, not a whole number")
    try:
        return np.array(values, np.int64)
    except OverflowError:
        raise row.error(column, "has a number of more than 64 bits") from None


def _kept(row: Row, mask: Any, labels: Any) -> slice:
    """Where a row is not padding."""
    wrong = np.flatnonzero((mask != 0) & (mask != 1))
    if len(wrong):
        raise row.error("attention_mask", f"[{wrong[0]}] is {mask[wrong[0]]}, neither 0 nor 1")
    seen = np.flatnonzero(mask)
    if not len(seen):
        raise row.error("attention_mask", "is 0 everywhere")
    kept = slice(int(seen[0]), int(seen[-1]) + 1)
    if not mask[kept].all():
        within = kept.start + int(np.flatnonzero(mask[kept] == 0)[0])
        raise row.error("attention_mask", f"[{within}] is 0 between tokens that are not padding")
    padding = np.flatnonzero((mask == 0) & (labels != MASKED))
    if len(padding):
        raise row.error("labels", f"[{padding[0]}] trains what attention_mask says is padding", "write -100 there")
    return kept


def _notes(trained: Any) -> list[tuple[int, str]]:
    """Where runs of trained and of masked tokens end."""
    ends = [*(np.flatnonzero(np.diff(trained)) + 1).tolist(), len(trained)]
    return [(end, "label" if trained[end - 1] else f"label {MASKED}") for end in ends]
