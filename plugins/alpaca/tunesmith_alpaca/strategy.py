"""Rows of an instruction and its answer to examples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from tunesmith import DataError, Example, Piece, Row, tokenized
from tunesmith_alpaca import AlpacaDataset
from tunesmith_alpaca.formats import Format, format_of


def instructions_to_examples(
    tokenizer: Any, rows: Iterable[Row], type: str, options: AlpacaDataset, train_on_inputs: bool = False
) -> Iterator[Example]:
    """One example for each row, in order: the prompt as context, the output and an end token trained.

    Prompt and output are tokenised apart, so the prompt's ids are those that the model is given when it is used.
    Raises DataError for a row that lacks a column, or if `field_input` was named and no row has it; ModelError for a
    tokenizer without an end token.
    """
    form = format_of(type, options)
    if options.field_input is not None:
        rows = _with_column(rows, options.field_input)
    return tokenized(tokenizer, (row_to_pieces(row, form, options, train_on_inputs) for row in rows))


def row_to_pieces(row: Row, form: Format, options: AlpacaDataset, train_on_inputs: bool) -> list[Piece]:
    """Raises DataError where a column is missing or no text; `input` may be missing, null or empty."""
    columns = form.columns
    given = ""
    if columns.input is not None and row.get(columns.input) is not None:
        given = row.require(columns.input)
    system = options.system_prompt
    if columns.system is not None:
        if columns.system not in row:
            row.require(columns.system)
        if row[columns.system] not in (None, ""):
            system = row.require(columns.system)
    prompt = form.prompt(row.require(columns.instruction), given, system)
    before = Piece(prompt, why="prompt (train_on_inputs)") if train_on_inputs else Piece.prompt(prompt)
    return [before, Piece(row.require(columns.output), why="output"), Piece.end()]


def _with_column(rows: Iterable[Row], column: str) -> Iterator[Row]:
    """The rows; raises DataError after the last if none had the column, which each alone may lack."""
    row, found = None, False
    for row in rows:
        found = found or column in row
        yield row
    if row is not None and not found:
        columns = ", ".join(map(str, row))
        raise DataError(f"field_input: no row has a column {column!r}; found: {columns}", code="row")
