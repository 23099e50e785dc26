"""Segments of text, each trained or not, put together without a template."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from tunesmith import Plugin, Settings, hookimpl

if TYPE_CHECKING:
    from tunesmith import DatasetSpec, Example, Row, Run


class SegmentsSettings(Settings):
    train_on_inputs: bool = False
    """Train every segment, also those whose label is false."""


class SegmentsDataset(Settings):
    """Further keys of a `datasets:` entry of type input_output."""

    field: str = "segments"
    """Column with the segments: a list of {label: true or false, text: ...}."""


TYPES = ("input_output",)
plugin = Plugin(
    settings=SegmentsSettings,
    strategies={"conversation": TYPES, "text": TYPES},
    dataset_settings=SegmentsDataset,
)


@hookimpl
def build_dataset(run: Run, spec: DatasetSpec, rows: Iterable[Row]) -> Iterator[Example]:
    """The segments' tokens end to end; the tokenizer adds none of its own."""
    from tunesmith import tokenized
    from tunesmith_inputoutput.segments import row_to_pieces

    column, everything = spec.option(SegmentsDataset).field, run.settings(SegmentsSettings).train_on_inputs
    return tokenized(run.tokenizer, (row_to_pieces(row, column, everything) for row in rows), special=False)
