"""Room on disk for the checkpoints of a run and its final model, known before any of them is written."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from tunesmith.errors import EnvironmentProblem
from tunesmith.finding import size
from tunesmith.run import Run
from tunesmith_engine.checkpoint.save import numbered

MEANS = 2
"""Numbers in float32 that an optimizer keeps for each trained one: those of Adam, and few keep more."""

PREPARED = 2
"""Bytes of prepared data for one of text: about four characters are a token, kept as an id and a weight of 4 bytes."""


@dataclass(frozen=True)
class CheckpointBytes:
    """What a run writes: bytes of one checkpoint and of the final model, and how many checkpoints are there at once.

    `number` is None where all are kept and nobody knows yet how many that will be.
    """

    checkpoint: int
    final: int
    number: int | None
    optimizer: int
    """Of those of a checkpoint, the bytes of the optimizer's state."""

    @property
    def total(self) -> int:
        return (self.number or 1) * self.checkpoint + self.final

    def __str__(self) -> str:
        many = "each checkpoint" if self.number is None else f"{self.number} checkpoints of"
        return f"{many} {size(self.checkpoint)} and a final model of {size(self.final)}"


def bytes_of(run: Run, module: nn.Module, exported_whole: bool) -> CheckpointBytes:
    """For a patched model: trained weights, optimizer state, and the model or adapter as others read it."""
    trained = [p for p in module.parameters() if p.requires_grad]
    weights = sum(p.numel() * p.element_size() for p in trained)
    exported = sum(p.numel() * p.element_size() for p in module.parameters()) if exported_whole else weights
    optimizer = MEANS * 4 * sum(p.numel() for p in trained)
    return CheckpointBytes(weights + optimizer + exported, exported, at_once(run), optimizer)


def at_once(run: Run) -> int | None:
    """Checkpoints on disk at one time: save_total_limit and the new one, as the oldest goes only after that is whole;
    fewer where the run does not save as often."""
    core = run.core
    epochs = None if core.pretraining_dataset else math.ceil(core.num_epochs)
    saves = epochs and epochs * (core.saves_per_epoch or 1)  # the last step is the end of an epoch
    if core.save_steps:
        saves = math.ceil(core.max_steps / core.save_steps) if core.max_steps else None
    elif core.pretraining_dataset:
        saves = 1
    if core.load_best_model_at_end:  # saves at each best evaluation
        saves = None
    known = [n for n in (saves, core.save_total_limit and core.save_total_limit + 1, core.max_steps) if n is not None]
    return min(known) if known else None


def prepared_bytes(run: Run) -> int:
    """About what the prepared data will take, by the local files that it is made from."""
    paths = [Path(spec.settings.path) for spec in run.config.datasets]
    return PREPARED * sum(f.stat().st_size for path in paths for f in (path, *path.rglob("*")) if f.is_file())


def existing(path: Path) -> Path:
    """The folder itself or the nearest one above it that exists."""
    path = path.absolute()
    return path if path.exists() else existing(path.parent)


def free_bytes(run: Run) -> int:
    """Room for this run's files: what is free in output_dir's file system, and what its checkpoints take already."""
    mine = sum(f.stat().st_size for _, folder in numbered(run.output_dir) for f in folder.rglob("*") if f.is_file())
    return shutil.disk_usage(existing(run.output_dir)).free + mine


def fits(run: Run, needed: CheckpointBytes, adam: bool = True) -> None:
    """Raises EnvironmentProblem where there is less room than that. An optimizer that is not one of the Adam family may
    keep less than is counted for it: then only what is sure is refused, and the rest noted."""
    free = free_bytes(run)
    if free >= needed.total:
        return
    if not adam and free >= needed.total - (needed.number or 1) * needed.optimizer:
        run.note(
            "room", f"{size(free)} free in {run.output_dir}; {needed} take {size(needed.total)} with AdamW's state"
        )
        return
    fewer = (free - needed.final) // needed.checkpoint - 1  # the new one is beside those that are kept
    help = f"write save_total_limit: {fewer}, or make room" if fewer > 0 else "make room, or name another output_dir"
    message = f"output_dir {run.output_dir} has {size(free)} free; {needed} take {size(needed.total)}"
    where = run.config.document.where(("output_dir",), value=True)
    raise EnvironmentProblem(message, where=where, code="disk", help=help)
