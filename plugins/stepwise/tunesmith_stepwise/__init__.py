"""Solutions in steps, each labeled right or wrong, for process reward models."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from pydantic import PositiveInt

from tunesmith import Plugin, Settings, hookimpl

if TYPE_CHECKING:
    from tunesmith import DatasetSpec, Example, Row, Run


class StepwiseDataset(Settings):
    """Additional keys of a `datasets:` entry of type stepwise_supervised."""

    step_separator: str = "\n"
    """Text after each step; the step is scored at its last token."""
    max_completion_length: PositiveInt | None = None
    """Largest number of tokens of all steps together; the rest is cut off."""
    train_on_last_step_only: bool = False
    """Score only the last step, as an outcome reward model does, in evaluation too."""


plugin = Plugin(strategies={"stepwise": ("stepwise_supervised",)}, dataset_settings=StepwiseDataset)


@hookimpl
def check_row(run: Run, spec: DatasetSpec, row: Row) -> None:
    from tunesmith_stepwise.steps import read

    read(row)


@hookimpl
def build_dataset(run: Run, spec: DatasetSpec, rows: Iterable[Row]) -> Iterator[Example]:
    from tunesmith_stepwise.steps import rows_to_examples

    return rows_to_examples(run, spec, rows)
