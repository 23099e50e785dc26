"""Prompts without answers, for methods that generate the answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from tunesmith import Plugin, Settings, hookimpl

if TYPE_CHECKING:
    from tunesmith import DatasetSpec, Example, Row, Run


class PromptDataset(Settings):
    """Additional keys of a `datasets:` entry of type prompt."""

    field_prompt: str = "prompt"
    """Column with the prompt. The other columns are passed to the method for its rewards."""


plugin = Plugin(strategies={"prompt": ("prompt",)}, dataset_settings=PromptDataset)


@hookimpl
def check_row(run: Run, spec: DatasetSpec, row: Row) -> None:
    from tunesmith_prompts.strategy import fields_of

    column = spec.option(PromptDataset).field_prompt
    row.require(column)
    fields_of(row, column)


@hookimpl
def build_dataset(run: Run, spec: DatasetSpec, rows: Iterable[Row]) -> Iterator[Example]:
    from tunesmith_prompts.strategy import rows_to_examples

    return rows_to_examples(run.tokenizer, rows, spec.option(PromptDataset).field_prompt)
