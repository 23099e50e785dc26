"""Instruction, input and output in the Alpaca prompt; the output is trained."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from tunesmith import Plugin, Settings, hookimpl

if TYPE_CHECKING:
    from tunesmith import DatasetSpec, Example, Row, Run


class AlpacaSettings(Settings):
    train_on_inputs: bool = False
    """Train the prompt too, not only the output."""


class AlpacaDataset(Settings):
    """Further keys of a `datasets:` entry of type alpaca."""

    field_instruction: str = "instruction"
    """Column with the task."""
    field_input: str = "input"
    """Column with further context; a row may leave it out or empty."""
    field_output: str = "output"
    """Column with the answer."""
    field_system: str | None = None
    """Column whose text, where a row has any, stands in place of the sentence that opens the prompt."""
    system_prompt: str | None = None
    """A text in place of the sentence that opens the prompt, for all rows."""


plugin = Plugin(settings=AlpacaSettings, strategies={"conversation": ("alpaca",)}, dataset_settings=AlpacaDataset)


@hookimpl
def build_dataset(run: Run, spec: DatasetSpec, rows: Iterable[Row]) -> Iterator[Example]:
    from tunesmith_alpaca.prompt import instructions_to_examples

    train_on_inputs = run.settings(AlpacaSettings).train_on_inputs
    return instructions_to_examples(run.tokenizer, rows, spec.option(AlpacaDataset), train_on_inputs)
