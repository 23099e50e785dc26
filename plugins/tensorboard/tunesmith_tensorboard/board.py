"""Steps as scalars in TensorBoard's event files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.utils.tensorboard import SummaryWriter

from tunesmith.redact import redact

if TYPE_CHECKING:
    from tunesmith import StepRecord


class Board:
    """Writes the steps after `done` to event files in a folder; what an earlier run wrote there beyond it is hidden."""

    def __init__(self, folder: str, done: int):
        self.writer = SummaryWriter(folder, purge_step=done + 1)

    def step(self, record: StepRecord) -> None:
        """Write the metrics of a logged step under train/, and those of an evaluation, without eval_, under eval/."""
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
