"""Instruction formats of well-known datasets: gpteacher, oasst, reflection, jeopardy, explainchoice, context_qa, ..."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from tunesmith import Plugin, Settings, hookimpl
from tunesmith_instruct.formats import FORMATS

if TYPE_CHECKING:
    from tunesmith import DatasetSpec, Example, Row, Run


class InstructSettings(Settings):
    train_on_inputs: bool = False
    """Train the prompt in addition to the answer."""


plugin = Plugin(settings=InstructSettings, shared=("train_on_inputs",), strategies={"conversation": tuple(FORMATS)})


@hookimpl
def check_row(run: Run, spec: DatasetSpec, row: Row) -> None:
    from tunesmith_instruct.strategy import row_to_pieces

    row_to_pieces(row, FORMATS[spec.type], train_on_inputs=False)


@hookimpl
def build_dataset(run: Run, spec: DatasetSpec, rows: Iterable[Row]) -> Iterator[Example]:
    from tunesmith_instruct.strategy import rows_to_examples

    train_on_inputs = run.settings(InstructSettings).train_on_inputs
    return rows_to_examples(run.tokenizer, rows, FORMATS[spec.type], train_on_inputs)
