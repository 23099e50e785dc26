"""Read the first rows of data, and find their layout."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from tunesmith import DataError
from tunesmith_starter.columns import Columns
from tunesmith_starter.layout import Layout
from tunesmith_starter.recognize import recognize

if TYPE_CHECKING:
    from tunesmith import Row

FIRST = 200
"""The number of rows that are read."""
NO_MODEL = "no/model"
"""The model of a config that only reads rows: an id of the hub, which is not looked at."""
POSSIBLE = (
    "messages: [{role, content}, ...]",
    "instruction, input, output",
    "prompt, completion",
    "prompt, chosen, rejected",
    "prompt, completion, label (true or false)",
    "prompt, completions, labels (one for each step)",
    "prompt, answer (for rewards)",
    "text",
)
"""Layouts of rows that can always be written, for a message."""


@dataclass(frozen=True)
class Data:
    """A dataset: its path, its first rows, and their layout."""

    path: str
    columns: Columns
    layout: Layout
    complete: bool
    """True if all rows were read."""

    @property
    def longest(self) -> int:
        """The number of characters of the longest of the first rows."""
        return max((len(str(list(row.values()))) for row in self.columns.rows), default=0)


def read_rows(path: str, number: int | None = FIRST) -> list[Row]:
    """Return the first rows of a dataset, all of them without a number. Raise DataError or what its reader raises."""
    from tunesmith import start

    entry: dict[str, Any] = {"path": path, "type": "completion"}
    run = start({"base_model": NO_MODEL, "datasets": [entry]}, check_rows=False)
    rows = run.hooks.load_rows(run, run.config.datasets[0])
    return list(rows if number is None else islice(rows, number))


def look_at(path: str) -> Data:
    """Return a dataset with its layout. Raise DataError that names its columns if no layout fits."""
    rows = read_rows(path)
    if not rows:
        raise DataError(f"{path} has no rows", where="command line (--data)", code="no-layout")
    columns = Columns(rows)
    layout = recognize(columns)
    if layout is None:
        raise no_layout(path, columns)
    return Data(path, columns, layout, len(rows) < FIRST)


def no_layout(path: str, columns: Columns) -> DataError:
    """Return the error for columns that no layout has: what was seen, and what can be written."""
    message = f"{path}: no known layout has these columns: {'; '.join(columns.described())}"
    help = f"write rows with one of these sets of columns: {' | '.join(POSSIBLE)}; or write type: ./rows.py:name with "
    help += "a function that returns what to train on (plugins/functions/README.md); docs/formats.md lists all types"
    return DataError(message, where="command line (--data)", help=help, code="no-layout")
