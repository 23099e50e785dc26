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
    for group, specs in (("datasets", run.config.datasets), ("pretraining_dataset", run.config.pretraining)):
        for index, spec in enumerate(specs):
            if not isinstance(spec.options, TextDataset):
                continue
            key = COLUMN_KEY[spec.settings.type]
            for other in sorted(spec.options.model_fields_set - {key}):
                message = f"has no effect with type: {spec.settings.type}"
                problems += run.config.error((group, index, other), message, f"write {key}: ...").problems
    if problems:
        raise ConfigError(problems)


@hookimpl
def build_dataset(run: Run, spec: DatasetSpec, rows: Iterable[Row]) -> Iterator[Example]:
    from tunesmith_completion.texts import texts_to_examples

    column = getattr(spec.option(TextDataset), COLUMN_KEY[spec.settings.type])
    return texts_to_examples(run.tokenizer, rows, column)
