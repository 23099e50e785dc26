"""Metrics for TensorBoard, under train/ and eval/."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith import Finding, Plugin, Settings, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tunesmith import Run, StepRecord
    from tunesmith_tensorboard.board import Board


class TensorBoardSettings(Settings):
    """Where TensorBoard's event files go."""

    use_tensorboard: bool = False
    """Write event files for TensorBoard."""
    tensorboard_dir: str | None = None
    """Their folder; output_dir/tensorboard where not set."""


plugin = Plugin(settings=TensorBoardSettings, switches=("use_tensorboard",), best_effort=True)
# By id of the run: hooks are functions, and an open event file lives between their calls.
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
