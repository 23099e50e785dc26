"""Predict the disk space of a run's checkpoints and final model, and check it before the first step."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from pathlib import Path

from torch import nn
from torch.optim import Optimizer

from tunesmith.errors import EnvironmentProblem
from tunesmith.finding import size
from tunesmith.run import Run
from tunesmith_engine.checkpoint.save import numbered
from tunesmith_engine.model.build import bytes_of as bytes_of_weights
from tunesmith_engine.model.optimizers import ADAM, state_bytes
from tunesmith_engine.model.parallelism import full_shape

PREPARED = 2
"""Bytes of prepared data per byte of text: four characters are about one token, stored as an id and a weight, 8 bytes.
"""


STATE, PER_TENSOR = 32_000, 700
"""Bytes of a checkpoint besides tensors and the tokenizer: random numbers and state (measured: 28 to 35 kB), and names,
types and offsets of each trained tensor in the headers and lists of its four files (measured: 650 to 710)."""


@dataclass(frozen=True)
class CheckpointBytes:
    """The bytes of a checkpoint and of the final model, and the number of checkpoints that exist at the same time.

    `number` is None if all are kept and their number is not known in advance.
    """

    checkpoint: int
    final: int
    number: int | None
    optimizer: int
    """The bytes of the optimizer's state. A checkpoint contains it, unless it is saved with save_only_model."""
    exact: bool = True
    """False if the optimizer may have less state."""

    @property
    def total(self) -> int:
        return (self.number or 1) * self.checkpoint + self.final

    def __str__(self) -> str:
        number = "1 checkpoint" if self.number == 1 else f"{self.number} checkpoints"
        checkpoints = "each checkpoint" if self.number is None else f"{number} of"
        return f"{checkpoints} {size(self.checkpoint)} and a final model of {size(self.final)}"


def bytes_of(run: Run, module: nn.Module, full_export: bool, optimizer: Optimizer | None = None) -> CheckpointBytes:
    """Return the bytes that a run writes. `module` has the patched model of the policy and its heads.

    A checkpoint has trained weights and buffers, optimizer state, and the export that other libraries read: the full
    model if `full_export`, otherwise the trained weights (an adapter). Heads are trained, so they are in both. Frozen
    models beside the policy are not written. The state of an unknown optimizer is taken to be that of Adam; few have
    more.
    """
    trained = [p for p in module.parameters() if p.requires_grad]
    weights = sum(full_shape(p).numel() * p.element_size() for p in trained)
    # A state dict has more than parameters: buffers that are saved. One that layers share is written once.
    names = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    saved = {id(b): b for n, b in module.state_dict(keep_vars=True).items() if n not in names}
    buffers = sum(b.numel() * b.element_size() for b in saved.values())
    exported = bytes_of_weights(module) + buffers if full_export else weights
    count = sum(full_shape(p).numel() for p in trained)
    known = state_bytes(optimizer, count)
    state = ADAM * count if known is None else known
    exported += tokenizer_bytes(run)
    small = STATE * run.world.size + PER_TENSOR * len(trained)
    size = weights + buffers + exported + small + (0 if run.core.save_only_model else state)
    exact = known is not None or optimizer is None or run.core.save_only_model
    return CheckpointBytes(size, exported, at_once(run), state, exact)


def tokenizer_bytes(run: Run) -> int:
    """Return the bytes of the tokenizer that is saved with the model: those of its files, if it is from a folder."""
    folder = Path(run.core.tokenizer_path)
    return sum(f.stat().st_size for f in folder.glob("*token*") if f.is_file()) if folder.is_dir() else 0


def at_once(run: Run) -> int | None:
    """Return the number of checkpoints that exist at the same time, or None if it is not known in advance.

    It is save_total_limit plus 1, because the oldest is deleted only after the new one is complete, or fewer if the run
    does not save as often.
    """
    core = run.core
    epochs = None if core.pretraining_dataset else math.ceil(core.num_epochs)
    saves = epochs and epochs * (core.saves_per_epoch or 1)  # the last step is the end of an epoch
    if core.save_steps:
        steps = 1 if core.save_steps < 1 else core.max_steps
        saves = math.ceil(steps / core.save_steps) if steps else None
    elif core.pretraining_dataset:
        saves = 1
    if core.load_best_model_at_end:  # saves at each best evaluation as well
        saves = None
    limits = [n for n in (saves, core.save_total_limit and core.save_total_limit + 1, core.max_steps) if n is not None]
    return min(limits) if limits else None


def prepared_bytes(run: Run) -> int:
    """Return an estimate of the bytes of the prepared data, from the sizes of the local files that it is made from."""
    paths = [Path(spec.settings.path) for spec in run.config.datasets]
    return PREPARED * sum(f.stat().st_size for path in paths for f in (path, *path.rglob("*")) if f.is_file())


def existing(path: Path) -> Path:
    """Return the folder itself, or the nearest one above it that exists."""
    path = path.absolute()
    return path if path.exists() else existing(path.parent)


def free_bytes(run: Run) -> int:
    """Return the bytes for this run's files: those that are free, and those of its own checkpoints.

    A resumed run replaces its old checkpoints, so their space counts as free.
    """
    own = sum(f.stat().st_size for _, folder in numbered(run.output_dir) for f in folder.rglob("*") if f.is_file())
    return shutil.disk_usage(existing(run.output_dir)).free + own


def fits(run: Run, needed: CheckpointBytes) -> None:
    """Raise EnvironmentProblem if there is less room than needed.

    If an optimizer may have less state, the files without that state must fit, and a lack of room for it is only noted.
    """
    free = free_bytes(run)
    if free >= needed.total:
        return
    if not needed.exact and free >= needed.total - (needed.number or 1) * needed.optimizer:
        run.note(
            "room", f"{size(free)} free in {run.output_dir}; {needed} take {size(needed.total)} with AdamW's state"
        )
        return
    fewer = (free - needed.final) // needed.checkpoint - 1  # less 1: the new one is written before the oldest goes
    help = f"write save_total_limit: {fewer}, or make room" if fewer > 0 else "make room, or choose another output_dir"
    message = f"output_dir {run.output_dir} has {size(free)} free; {needed} take {size(needed.total)}"
    raise EnvironmentProblem(message, where=run.config.place("output_dir"), code="disk", help=help)
