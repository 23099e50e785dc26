"""Find where a loss or gradient that is not finite comes from, and react to it. It never reaches the weights.

A gradient that stays 0 is an error too.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tunesmith.errors import NumericalError
from tunesmith.files.row import Source
from tunesmith.run import Run
from tunesmith_engine.batch.batch import Batch
from tunesmith_engine.checkpoint.resume import newest
from tunesmith_engine.data.rows import filtered, read_all, rows_of
from tunesmith_engine.runtime.rng import random_state, set_random_state

if TYPE_CHECKING:
    from tunesmith_engine.training.state import TrainState

PATIENCE = 3  # bad steps in a row that skip and rollback tolerate
IDLE_WARNING, IDLE_STOP = 10, 50
"""Steps in a row without a gradient. Rewards that are equal in each group cause a few; 50 are a run without effect."""


def is_finite(metrics: dict[str, Tensor | float], norm: Tensor) -> bool:
    """Return True if the loss and the gradient norm of a step are finite. Both are the same on all processes."""
    loss = torch.as_tensor(metrics["loss"], device=norm.device)
    return bool(torch.isfinite(torch.stack([loss.float(), norm.float()])).all())


def react(state: TrainState, bad: Sequence[Batch], metrics: dict[str, Tensor | float]) -> None:
    """Apply `on_nonfinite` to a step. `bad` are the batches of this process whose loss is not finite.

    Raises NumericalError to stop; otherwise the step has no effect on the weights.
    """
    run, reaction = state.run, state.run.core.on_nonfinite
    message = describe(state, bad, metrics)
    run.parallelism.drop_gradients(state.optimizer)
    state.bad_steps += 1
    if reaction == "stop" or state.bad_steps > PATIENCE:
        rows = "look at these rows, " if "; rows " in message else ""
        help = f"{rows}lower learning_rate, or write on_nonfinite: skip"
        raise NumericalError(message, code="not-finite", help=help)
    run.note(f"step {run.step + 1}: not finite, {'skipped' if reaction == 'skip' else 'rolled back'}", message)
    if reaction == "rollback":
        roll_back(state)


def count_idle(run: Run, before: int, norm: Tensor | float) -> int:
    """Return the number of steps in a row whose gradient is 0. Warn at IDLE_WARNING, raise NumericalError at IDLE_STOP.

    A single such step may be right: a group of answers with equal rewards has no advantages.
    """
    idle = before + 1 if float(norm) == 0.0 else 0
    message = f"the gradient is 0 in {idle} steps in a row, up to step {run.step}: nothing is trained"
    if idle == IDLE_WARNING:
        run.note("gradient", message)
        if run.world.main:
            print(f"warning: {message}; training stops at {IDLE_STOP}", file=sys.stderr)
    if idle == IDLE_STOP:
        help = "check the weights of the rows, rewards that are all equal, and plugins that change the loss or backward"
        raise NumericalError(message, code="no-gradient", help=help)
    return idle


def roll_back(state: TrainState) -> None:
    """Load weights and optimizer of the newest checkpoint. The data continues after the bad step."""
    state.settle()
    folder = newest(state.run)
    if folder is None:
        raise NumericalError("there is no checkpoint to roll back to", code="not-finite", help="write save_steps: ...")
    state.restore_weights(folder)


def describe(state: TrainState, bad: Sequence[Batch], metrics: dict[str, Tensor | float]) -> str:
    """Return a description of the terms, modules, rows and gradients that are not finite, over all processes."""
    terms = [name for name, value in metrics.items() if not math.isfinite(float(value))]
    parts = [f"{', '.join(terms)} not finite" if terms else "loss finite, gradient not"]
    if not state.run.world.sharded:  # a forward on one process would wait for the others
        modules = [first_bad_module(state, batch) for batch in bad]
        parts += [f"first in the output of {name}" for name in dict.fromkeys(modules) if name]
    by_process = state.run.world.gather([places_of(state, batch) for batch in bad])
    places = sorted({place for places in by_process for place in places})
    parts += [f"rows {place}" for place in places]
    if gradients := bad_gradients(state.policy.unwrapped):
        parts.append(f"{len(gradients)} gradients affected, first {gradients[0]}")
    return f"step {state.run.step + 1}: {'; '.join(parts)}; the weights were not updated"


def bad_gradients(module: nn.Module) -> list[str]:
    """Return the names of parameters whose gradient is not finite."""
    return [
        name.removeprefix("module.")
        for name, p in module.named_parameters()
        if p.grad is not None and not _finite(p.grad)
    ]


def first_bad_module(state: TrainState, batch: Batch) -> str | None:
    """Run the forward of a batch again and name the first module whose output is not finite."""
    bad_names: list[str] = []
    names = {module: name or "the model" for name, module in state.policy.model.named_modules()}

    def watch(module: nn.Module, inputs: Any, output: Any) -> None:
        first = output[0] if isinstance(output, tuple) and output else output
        if not bad_names and isinstance(first, Tensor) and not _finite(first):
            bad_names.append(names[module])

    handles = [module.register_forward_hook(watch) for module in names]
    random = random_state()
    try:
        with torch.no_grad():
            # Not the wrapped module, because the other processes do not call it.
            state.policy.language_model.hidden(batch, (), False)
    finally:
        set_random_state(random)
        for handle in handles:
            handle.remove()
    return bad_names[0] if bad_names else None


def places_of(state: TrainState, batch: Batch, most: int = 5) -> str:
    """Return the places of the rows of a batch, by reading the data again."""
    run = state.run
    streamed = [Source(spec, rows_of(run, spec)) for spec in run.config.streamed]
    sources = streamed or filtered(run, read_all(run))
    origins = sorted({origin for origin in batch.origins if origin[0] >= 0})
    places = []
    for entry, number in origins[:most]:
        places += [row.where for row in islice(sources[entry].rows, number, number + 1)]
    remaining = len(origins) - len(places)
    return ", ".join([*places, *([f"and {remaining} more"] if remaining else [])])


def _finite(tensor: Tensor) -> bool:
    local = tensor.to_local() if hasattr(tensor, "to_local") else tensor  # a shard under FSDP2
    return bool(torch.isfinite(local).all()) if local.is_floating_point() else True
