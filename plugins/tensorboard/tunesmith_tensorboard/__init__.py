"""Write metrics for TensorBoard, under train/ and eval/."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith import Finding, PathText, Plugin, Settings, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tunesmith import LogRecord, Run


class TensorBoardSettings(Settings):
    """Settings of the TensorBoard logger."""

    use_tensorboard: bool = False
    """Write event files for TensorBoard."""
    tensorboard_dir: PathText | None = None
    """Folder of the event files. The default is output_dir/tensorboard."""


plugin = Plugin(settings=TensorBoardSettings, switches=("use_tensorboard",), best_effort=True)


@hookimpl
def diagnose() -> Iterator[Finding]:
    yield Finding.of_module("torch.utils.tensorboard", 'pip install "tunesmith[tensorboard]"')


@hookimpl
def on_start(run: Run) -> None:
    """Keep the step that the run resumes from, whose later steps an interrupted run may have written already."""
    from tunesmith_tensorboard.board import Board

    if run.world.main:
        run.owned(Board)


@hookimpl
def write_log(run: Run, record: LogRecord) -> None:
    from tunesmith_tensorboard.board import Board

    run.owned(Board).write(record)
