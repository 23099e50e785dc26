"""Rows of token ids: input_ids, and labels that mark the trained tokens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from tunesmith import Plugin, hookimpl

if TYPE_CHECKING:
    from tunesmith import DatasetSpec, Example, Row, Run

TYPES = ("tokenized",)
plugin = Plugin(strategies={"conversation": TYPES, "text": TYPES})


@hookimpl
def check_row(run: Run, spec: DatasetSpec, row: Row) -> None:
    from tunesmith_pretokenized.tokens import row_to_example

    row_to_example(row, vocabulary=1 << 31)  # its size is known with the tokenizer


@hookimpl
def build_dataset(run: Run, spec: DatasetSpec, rows: Iterable[Row]) -> Iterator[Example]:
    from tunesmith_pretokenized.tokens import row_to_example

    size = len(run.tokenizer)
    return (row_to_example(row, size) for row in rows)
