"""Solutions in steps, each labeled right or wrong, for process reward models."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Literal

from pydantic import Field, PositiveInt

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
    neutral_steps: Literal["right", "wrong"] = "right"
    """Label of a step that is rated 0, neither right nor wrong (type: stepwise_supervised.prm800k)."""
    step_marker: str = Field("ки", min_length=1)
    """Text after each step (type: stepwise_supervised.math_shepherd)."""


RATED, MARKED = "stepwise_supervised.prm800k", "stepwise_supervised.math_shepherd"
"""Types that read the rows of PRM800K and Math-Shepherd."""
KEYS = {"neutral_steps": RATED, "step_marker": MARKED}
"""Key -> the type that reads it."""

plugin = Plugin(strategies={"stepwise": ("stepwise_supervised", RATED, MARKED)}, dataset_settings=StepwiseDataset)


@hookimpl
def validate(run: Run) -> None:
    """Refuse keys of another type."""
    with run.config.checking() as wrong:
        for spec in run.config.entries:
            if isinstance(spec.options, StepwiseDataset):
                for key in sorted(spec.options.model_fields_set & {key for key in KEYS if KEYS[key] != spec.type}):
                    wrong((spec.group, spec.index, key), f"has no effect with type: {spec.type}", "drop it")


@hookimpl
def check_row(run: Run, spec: DatasetSpec, row: Row) -> None:
    from tunesmith_stepwise.layouts import arranged
    from tunesmith_stepwise.steps import read

    solution = arranged(row, spec.type, spec.option(StepwiseDataset))
    if solution is not None:
        read(solution)


@hookimpl
def build_dataset(run: Run, spec: DatasetSpec, rows: Iterable[Row]) -> Iterator[Example]:
    from tunesmith_stepwise.steps import rows_to_examples

    return rows_to_examples(run, spec, rows)
