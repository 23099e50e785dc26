"""Turn rows into examples with only a prompt, and keep the other columns for rewards."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import tee
from typing import Any

from tunesmith import Example, Piece, Row, tokenized


def rows_to_examples(tokenizer: Any, rows: Iterable[Row], column: str) -> Iterator[Example]:
    """Yield an example for each row, in order: the prompt, no completion, and the other columns as its fields.

    Raise DataError for a row without a prompt, or with a column that is not a JSON value.
    """
    rows, again = tee(rows)
    prompts = ([Piece.prompt(row.require(column))] for row in rows)
    for row, example in zip(again, tokenized(tokenizer, prompts), strict=True):
        if not example.segments[0].tokens.size:
            raise row.error(column, "has no tokens, so nothing can be generated")
        example.fields = fields_of(row, column)
        yield example


def fields_of(row: Row, column: str) -> dict[str, Any]:
    """Return the columns other than the prompt. Raise DataError for one that is not a JSON value."""
    return {name: _json(row, name) for name in row if name != column}


def _json(row: Row, name: str) -> Any:
    try:
        json.dumps(row[name])
    except (TypeError, ValueError, RecursionError) as error:
        raise row.error(
            name, f"must be a JSON value to be passed to rewards, got {type(row[name]).__name__}: {error}"
        ) from None
    return row[name]
