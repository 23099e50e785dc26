"""Pairs of a chosen and a rejected answer, and answers labeled good or bad, in plain text formats."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Literal

from tunesmith import Plugin, Settings, hookimpl
from tunesmith_preference.formats import FORMATS

if TYPE_CHECKING:
    from tunesmith import DatasetSpec, Example, Row, Run


class PreferenceDataset(Settings):
    """Additional keys of a `datasets:` entry of pairs or labeled answers. Columns that are not set are the type's."""

    field_system: str | None = None
    """Column with the system prompt. If set, every row must have the column; its value may be empty."""
    field_prompt: str | None = None
    """Column with the prompt."""
    field_chosen: str | None = None
    """Column with the better answer (pairs)."""
    field_rejected: str | None = None
    """Column with the worse answer (pairs)."""
    field_completion: str | None = None
    """Column with the answer (labeled answers)."""
    field_label: str = "label"
    """Column with the label of the answer: true or 1 for a good one, false or 0 for a bad one (labeled answers)."""
    prompt_format: str = "{prompt}"
    """Text of the prompt, with {prompt} and {system} (type: passthrough)."""
    chosen_format: str = "{chosen}"
    """Text of the better answer, with {chosen} (type: passthrough)."""
    rejected_format: str = "{rejected}"
    """Text of the worse answer, with {rejected} (type: passthrough)."""
    completion_format: str = "{completion}"
    """Text of a labeled answer, with {completion} (type: passthrough)."""
    nectar_pair: Literal["best_worst", "best_second"] = "best_worst"
    """Ranked answers that are chosen and rejected: the best and the worst, or the best and the second best (type:
    zephyr.nectar)."""


plugin = Plugin(
    strategies={kind: tuple(types) for kind, types in FORMATS.items()},
    dataset_settings=PreferenceDataset,
)


@hookimpl
def validate(run: Run) -> None:
    """Refuse keys that have no effect and invalid formats."""
    from tunesmith_preference.checks import check_entries

    check_entries(run)


@hookimpl
def check_row(run: Run, spec: DatasetSpec, row: Row) -> None:
    from tunesmith_preference.rows import Reader

    Reader(spec.row_kind, spec.type, spec.option(PreferenceDataset)).read(row)


@hookimpl
def build_dataset(run: Run, spec: DatasetSpec, rows: Iterable[Row]) -> Iterator[Example]:
    from tunesmith_preference.strategy import rows_to_examples

    return rows_to_examples(run, spec, rows)
