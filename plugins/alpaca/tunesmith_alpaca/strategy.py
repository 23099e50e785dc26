"""Turn rows of an instruction and its answer into examples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from tunesmith import DataError, Example, Piece, Row, tokenized
from tunesmith_alpaca import AlpacaDataset
from tunesmith_alpaca.formats import Format, format_of


def instructions_to_examples(
    tokenizer: Any, rows: Iterable[Row], type: str, options: AlpacaDataset, train_on_inputs: bool = False
) -> Iterator[Example]:
    """Yield an example for each row, in order: the prompt as context, then the output and an end token, both trained.

    Prompt and output are tokenized separately, so the ids of the prompt are the same as at inference. Raise DataError
    for a row with a missing column, or if no row has the column set as `field_input`; ModelError for a tokenizer
    without an end token.
    """
    form = format_of(type, options)
    if options.field_input is not None:
        rows = _with_column(rows, options.field_input)
    return tokenized(tokenizer, (row_to_pieces(row, form, options, train_on_inputs) for row in rows))


def row_to_pieces(row: Row, form: Format, options: AlpacaDataset, train_on_inputs: bool) -> list[Piece]:
    """Return the pieces of a row. Raise DataError if a column is missing or not a text.

    The input may be missing, null or empty.
    """
    columns = form.columns
    input = ""
    if columns.input is not None and row.get(columns.input) is not None:
        input = row.require(columns.input)
    system = options.system_prompt
    if columns.system is not None:
        if columns.system not in row:
            row.require(columns.system)
        if row[columns.system] not in (None, ""):
            system = row.require(columns.system)
    prompt = form.prompt(row.require(columns.instruction), input, system)
    context = Piece(prompt, why="prompt (train_on_inputs)") if train_on_inputs else Piece.prompt(prompt)
    return [context, Piece(row.require(columns.output), why="output"), Piece.end()]


def _with_column(rows: Iterable[Row], column: str) -> Iterator[Row]:
    """Yield the rows. Raise DataError after the last one if no row has the column, which is optional in each row."""
    row, seen = None, False
    for row in rows:
        seen = seen or column in row
        yield row
    if row is not None and not seen:
        columns = ", ".join(map(str, row))
        raise DataError(f"field_input: no row has a column {column!r}; found: {columns}", code="row")
