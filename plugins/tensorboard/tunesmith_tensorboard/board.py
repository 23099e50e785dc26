"""Write steps as scalars to TensorBoard event files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.utils.tensorboard import SummaryWriter

from tunesmith.redact import redact

if TYPE_CHECKING:
    from tunesmith import StepRecord


class Board:
    """A writer of event files for the steps after `last_step`.

    TensorBoard hides later steps that an earlier run wrote to the same folder.
    """

    def __init__(self, folder: str, last_step: int):
        self.writer = SummaryWriter(folder, purge_step=last_step + 1)

    def step(self, record: StepRecord) -> None:
        """Write the metrics of a logged step under train/, and those of an evaluation under eval/, without "eval_"."""
        evaluation = record.evaluation or {}
        scalars = {f"eval/{name.removeprefix('eval_')}": value for name, value in evaluation.items()}
        if record.log:
            numbers = record.scalars()
            scalars |= {f"train/{k}": v for k, v in numbers.items() if k != "step" and k not in evaluation}
        for name, value in scalars.items():
            self.writer.add_scalar(redact(name), value, record.step)
        if scalars:
            self.writer.flush()

    def close(self) -> None:
        self.writer.close()
