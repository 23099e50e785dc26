"""Pairs of a chosen and a rejected answer, and answers labelled good or bad, in plain text formats."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Literal

from tunesmith import Plugin, Settings, hookimpl
from tunesmith_preference.formats import FORMATS

if TYPE_CHECKING:
    from tunesmith import DatasetSpec, Example, Row, Run


class PreferenceDataset(Settings):
    """Further keys of a `datasets:` entry of pairs or of labelled answers. A column that is not named is the type's."""

    field_system: str | None = None
    """Column with the system prompt; where it is named, each row has it, and may leave it empty."""
    field_prompt: str | None = None
    """Column with the prompt."""
    field_chosen: str | None = None
    """Column with the better answer (pairs)."""
    field_rejected: str | None = None
    """Column with the worse answer (pairs)."""
    field_completion: str | None = None
    """Column with the answer (labelled answers)."""
    field_label: str = "label"
    """Column that says whether the answer is good: true or false, 1 or 0 (labelled answers)."""
    prompt_format: str = "{prompt}"
    """How the prompt is written, with {prompt} and {system} (type: passthrough)."""
    chosen_format: str = "{chosen}"
    """How the better answer is written, with {chosen} (type: passthrough)."""
    rejected_format: str = "{rejected}"
    """How the worse answer is written, with {rejected} (type: passthrough)."""
    completion_format: str = "{completion}"
    """How a labelled answer is written, with {completion} (type: passthrough)."""
    nectar_pair: Literal["best_worst", "best_second"] = "best_worst"
    """Which of the ranked answers are chosen and rejected (type: zephyr.nectar)."""


plugin = Plugin(
    strategies={kind: tuple(types) for kind, types in FORMATS.items()},
    dataset_settings=PreferenceDataset,
)


@hookimpl
def validate(run: Run) -> None:
    """Refuse keys that have no effect, and formats that can't be filled in."""
    from tunesmith_preference.checks import check_entries

    check_entries(run)


@hookimpl
def build_dataset(run: Run, spec: DatasetSpec, rows: Iterable[Row]) -> Iterator[Example]:
    from tunesmith_preference.strategy import rows_to_examples

    return rows_to_examples(run, spec, rows)
