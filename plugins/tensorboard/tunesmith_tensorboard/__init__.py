"""Write metrics for TensorBoard, under train/ and eval/."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith import Finding, Plugin, Settings, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tunesmith import Run, StepRecord
    from tunesmith_tensorboard.board import Board


class TensorBoardSettings(Settings):
    """Settings of the TensorBoard logger."""

    use_tensorboard: bool = False
    """Write event files for TensorBoard."""
    tensorboard_dir: str | None = None
    """Folder of the event files. The default is output_dir/tensorboard."""


plugin = Plugin(settings=TensorBoardSettings, switches=("use_tensorboard",), best_effort=True)
# Boards by id of the run, because hooks are functions and an event file stays open between their calls.
_boards: dict[int, Board] = {}


@hookimpl
def diagnose() -> Iterator[Finding]:
    yield Finding.of_module("torch.utils.tensorboard", 'pip install "tunesmith[tensorboard]"')


@hookimpl
def on_start(run: Run) -> None:
    from tunesmith_tensorboard.board import Board

    if run.world.main:
        folder = run.settings(TensorBoardSettings).tensorboard_dir
        _boards[id(run)] = Board(folder or str(run.output_dir / "tensorboard"), run.step)


@hookimpl(trylast=True)
def on_step(run: Run, record: StepRecord) -> None:
    if run.world.main:
        _boards[id(run)].step(record)


@hookimpl
def on_end(run: Run) -> None:
    board = _boards.pop(id(run), None)
    if board:
        board.close()
