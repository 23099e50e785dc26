"""Plain texts in which every token is trained, also for the streamed `pretraining_dataset`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from tunesmith import ConfigError, Plugin, Problem, Settings, hookimpl

if TYPE_CHECKING:
    from tunesmith import DatasetSpec, Example, Row, Run


class TextDataset(Settings):
    """Additional keys of a `datasets:` entry of type completion or a `pretraining_dataset:` entry of type pretrain."""

    field: str = "text"
    """Column with the text, for type: completion."""
    text_column: str = "text"
    """Column with the text, for type: pretrain."""


COLUMN_KEY = {"completion": "field", "pretrain": "text_column"}
"""`type:` -> the key that names the column."""

plugin = Plugin(strategies={"text": tuple(COLUMN_KEY)}, dataset_settings=TextDataset)


@hookimpl
def validate(run: Run) -> None:
    """Raise ConfigError if the key of the other type is set, which has no effect."""
    problems: list[Problem] = []
    for spec in run.config.entries:
        if not isinstance(spec.options, TextDataset):
            continue
        key = COLUMN_KEY[spec.type]
        for unused in sorted(spec.options.model_fields_set - {key}):
            message = f"has no effect with type: {spec.type}"
            problems += run.config.error((spec.group, spec.index, unused), message, f"write {key}: ...").problems
    if problems:
        raise ConfigError(problems)


@hookimpl
def check_row(run: Run, spec: DatasetSpec, row: Row) -> None:
    row.require(getattr(spec.option(TextDataset), COLUMN_KEY[spec.type]))


@hookimpl
def build_dataset(run: Run, spec: DatasetSpec, rows: Iterable[Row]) -> Iterator[Example]:
    """Yield an example of each text with the tokenizer's special tokens and one end token. The core cuts long texts."""
    from tunesmith import Piece, tokenized

    column = getattr(spec.option(TextDataset), COLUMN_KEY[spec.type])
    return tokenized(run.tokenizer, ([Piece(row.require(column)), Piece.end()] for row in rows))
