"""Segments of text, each trained or not, joined without a template."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from tunesmith import Plugin, Settings, hookimpl

if TYPE_CHECKING:
    from tunesmith import DatasetSpec, Example, Row, Run


class SegmentsSettings(Settings):
    train_on_inputs: bool = False
    """Train all segments, including those whose label is false."""


class SegmentsDataset(Settings):
    """Additional keys of a `datasets:` entry of type input_output."""

    field: str = "segments"
    """Column with the segments: a list of {label: true or false, text: ...}."""


TYPES = ("input_output",)
plugin = Plugin(
    settings=SegmentsSettings,
    shared=("train_on_inputs",),
    strategies={"conversation": TYPES, "text": TYPES},
    dataset_settings=SegmentsDataset,
)


@hookimpl
def check_row(run: Run, spec: DatasetSpec, row: Row) -> None:
    from tunesmith_inputoutput.segments import row_to_pieces

    row_to_pieces(row, spec.option(SegmentsDataset).field)


@hookimpl
def build_dataset(run: Run, spec: DatasetSpec, rows: Iterable[Row]) -> Iterator[Example]:
    """Yield an example of the joined segments of each row. The tokenizer adds no special tokens."""
    from tunesmith import tokenized
    from tunesmith_inputoutput.segments import row_to_pieces

    column, train_all = spec.option(SegmentsDataset).field, run.settings(SegmentsSettings).train_on_inputs
    return tokenized(run.tokenizer, (row_to_pieces(row, column, train_all) for row in rows), special=False)
