"""Write records to TensorBoard event files."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from tunesmith.redact import redact
from tunesmith_tensorboard import TensorBoardSettings

if TYPE_CHECKING:
    from tunesmith import LogRecord, Run, Table


class Board:
    """A writer of event files for the steps after the one that the run resumes from.

    TensorBoard hides later steps that an earlier run wrote to the same folder. The folder is created with the first
    record, on the thread of the loggers.
    """

    def __init__(self, run: Run):
        self.folder = run.settings(TensorBoardSettings).tensorboard_dir or str(run.output_dir / "tensorboard")
        self.first = run.step + 1
        self.writer: SummaryWriter | None = None

    def write(self, record: LogRecord) -> None:
        """Write metrics under train/ and evaluations under eval/, without "eval_"; histograms; and tables as texts."""
        writer = self.writer = self.writer or SummaryWriter(self.folder, purge_step=self.first)
        scalars = {f"eval/{name.removeprefix('eval_')}": value for name, value in (record.evaluation or {}).items()}
        if record.metrics:
            scalars |= {f"train/{name}": value for name, value in {"epoch": record.epoch, **record.metrics}.items()}
        for name, value in scalars.items():
            writer.add_scalar(redact(name), value, record.step)
        for name, values in record.histograms.items():
            if finite := [value for value in values if math.isfinite(value)]:  # TensorBoard accepts no others
                writer.add_histogram(redact(name), np.array(finite), record.step)
        for name, rows in record.tables.items():
            writer.add_text(redact(name), redact(markdown(rows)), record.step)
        writer.flush()

    def close(self) -> None:
        if self.writer:
            self.writer.close()


def markdown(rows: Table) -> str:
    """Format rows as a table in Markdown, which TensorBoard renders."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines = [columns, ["---"] * len(columns), *([str(row.get(column, "")) for column in columns] for row in rows)]
    cells = [[cell.replace("|", "\\|").replace("\n", "<br>") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)
