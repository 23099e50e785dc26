"""Turn rows of a well-known format into examples."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from string import Formatter
from typing import Any

from tunesmith import Example, Piece, Row, tokenized
from tunesmith_instruct.columns import read
from tunesmith_instruct.formats import Format


def rows_to_examples(
    tokenizer: Any, rows: Iterable[Row], form: Format, train_on_inputs: bool = False
) -> Iterator[Example]:
    """Yield an example for each row, in order: the prompt as context, then the answer and an end token, both trained.

    Raise DataError for a row with a missing column, ModelError for a tokenizer without an end token.
    """
    return tokenized(tokenizer, (row_to_pieces(row, form, train_on_inputs) for row in rows))


def row_to_pieces(row: Row, form: Format, train_on_inputs: bool) -> list[Piece]:
    template = form.prompt
    if form.without_input is not None and not read(row, "input"):
        template = form.without_input
    prompt = fill(template, row)
    context = Piece(prompt, why="prompt (train_on_inputs)") if train_on_inputs else Piece.prompt(prompt)
    return [context, Piece(fill(form.answer, row), why="answer"), Piece.end()]


def fill(template: str, row: Row) -> str:
    """Return a template filled with the texts of a row. Braces in the texts are kept as they are."""
    return template.format(**{name: read(row, name) for name in names(template)})


@functools.cache
def names(template: str) -> tuple[str, ...]:
    """Return the names in a template, in order and without duplicates."""
    return tuple(dict.fromkeys(name for _, name, _, _ in Formatter().parse(template) if name))
