"""Rows to examples that are a prompt and nothing else, with the rest of the row beside it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import tee
from typing import Any

from tunesmith import Example, Piece, Row, tokenized


def rows_to_examples(tokenizer: Any, rows: Iterable[Row], column: str) -> Iterator[Example]:
    """One example for each row, in order: the prompt, no completion, and the other columns as its fields.

    Raises DataError for a row without a prompt, or with a column that is no JSON value.
    """
    rows, again = tee(rows)
    prompts = ([Piece.prompt(row.require(column))] for row in rows)
    for row, example in zip(again, tokenized(tokenizer, prompts), strict=True):
        if not example.segments[0].tokens.size:
            raise row.error(column, "gives no tokens, and nothing can be generated from nothing")
        example.fields = {name: _json(row, name) for name in row if name != column}
        yield example


def _json(row: Row, name: str) -> Any:
    try:
        json.dumps(row[name])
    except (TypeError, ValueError, RecursionError) as error:
        raise row.error(name, f"is {type(row[name]).__name__}, which can't be kept for rewards: {error}") from None
    return row[name]
