"""Solutions in steps, each labelled right or wrong, for process reward models."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from pydantic import PositiveInt

from tunesmith import Plugin, Settings, hookimpl

if TYPE_CHECKING:
    from tunesmith import DatasetSpec, Example, Row, Run


class StepwiseDataset(Settings):
    """Further keys of a `datasets:` entry of type stepwise_supervised."""

    step_separator: str = "\n"
    """Text after each step; its last token is where the step is scored."""
    max_completion_length: PositiveInt | None = None
    """Tokens of all steps together after which the rest is left out."""
    train_on_last_step_only: bool = False
    """Score the last step alone, as an outcome reward model does; in evaluation too."""


plugin = Plugin(strategies={"stepwise": ("stepwise_supervised",)}, dataset_settings=StepwiseDataset)


@hookimpl
def build_dataset(run: Run, spec: DatasetSpec, rows: Iterable[Row]) -> Iterator[Example]:
    from tunesmith_stepwise.steps import rows_to_examples

    return rows_to_examples(run, spec, rows)
