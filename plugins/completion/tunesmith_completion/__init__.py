"""Plain texts: every token is trained. Also the strategy of the streamed `pretraining_dataset`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from tunesmith import ConfigError, Plugin, Problem, Settings, hookimpl

if TYPE_CHECKING:
    from tunesmith import DatasetSpec, Example, Row, Run


class TextDataset(Settings):
    """Further keys of a `datasets:` entry of type completion, or a `pretraining_dataset:` entry of type pretrain."""

    field: str = "text"
    """Column with the text (type: completion)."""
    text_column: str = "text"
    """Column with the text (type: pretrain)."""


COLUMN_KEY = {"completion": "field", "pretrain": "text_column"}
"""Which key names the column, by `type:`."""

plugin = Plugin(strategies={"text": tuple(COLUMN_KEY)}, dataset_settings=TextDataset)


@hookimpl
def validate(run: Run) -> None:
    """Refuse the key of the other type: it would have no effect."""
    problems: list[Problem] = []
    for spec in run.config.entries:
        if not isinstance(spec.options, TextDataset):
            continue
        key = COLUMN_KEY[spec.type]
        for other in sorted(spec.options.model_fields_set - {key}):
            message = f"has no effect with type: {spec.type}"
            problems += run.config.error((spec.group, spec.index, other), message, f"write {key}: ...").problems
    if problems:
        raise ConfigError(problems)


@hookimpl
def build_dataset(run: Run, spec: DatasetSpec, rows: Iterable[Row]) -> Iterator[Example]:
    """The tokenizer's own special tokens, the text, and one end token; the core cuts what is too long."""
    from tunesmith import Piece, tokenized

    column = getattr(spec.option(TextDataset), COLUMN_KEY[spec.type])
    return tokenized(run.tokenizer, ([Piece(row.require(column)), Piece.end()] for row in rows))
