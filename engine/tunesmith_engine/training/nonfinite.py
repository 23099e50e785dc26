"""A loss or gradient that is not finite: where it comes from, and what happens then. The weights never see it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tunesmith.errors import NumericalError
from tunesmith.files.row import Source
from tunesmith_engine.batch.batch import Batch
from tunesmith_engine.checkpoint.resume import newest
from tunesmith_engine.data.rows import filtered, read_all, rows_of
from tunesmith_engine.runtime.rng import random_state, set_random_state
from tunesmith_engine.training import state

if TYPE_CHECKING:
    from tunesmith_engine.training.loop import Loop

PATIENCE = 3  # bad steps in a row that skip and rollback put up with


def is_finite(metrics: dict[str, Tensor | float], norm: Tensor) -> bool:
    """Whether a step's loss and gradient norm are; both are the same on all processes, and so is the answer."""
    loss = torch.as_tensor(metrics["loss"], device=norm.device)
    return bool(torch.isfinite(torch.stack([loss.float(), norm.float()])).all())


def react(loop: Loop, bad: Sequence[Batch], metrics: dict[str, Tensor | float]) -> None:
    """Do what `on_nonfinite` says about a bad step; `bad` are this process's batches whose loss is not finite.

    Raises NumericalError to stop; else the step has no effect on the weights.
    """
    run, policy = loop.run, loop.run.core.on_nonfinite
    message = describe(loop, bad, metrics)
    loop.optimizer.zero_grad(set_to_none=True)
    loop.bad_steps += 1
    if policy == "stop" or loop.bad_steps > PATIENCE:
        help = "look at these rows, lower learning_rate, or write on_nonfinite: skip"
        raise NumericalError(message, code="not-finite", help=help)
    run.note(f"step {run.step + 1}: not finite, {'skipped' if policy == 'skip' else 'rolled back'}", message)
    if policy == "rollback":
        roll_back(loop)


def roll_back(loop: Loop) -> None:
    """Weights and optimizer of the newest checkpoint, or of the start; the data goes on after the bad step."""
    folder = newest(loop.run)
    if folder is None:
        raise NumericalError("there is no checkpoint to roll back to", code="not-finite", help="write save_steps: ...")
    state.restore_weights(loop, folder)


def describe(loop: Loop, bad: Sequence[Batch], metrics: dict[str, Tensor | float]) -> str:
    """Which terms, modules, rows and gradients, over all processes."""
    terms = [name for name, value in metrics.items() if not math.isfinite(float(value))]
    parts = [f"{', '.join(terms)} not finite" if terms else "loss finite, gradient not"]
    if not loop.run.world.sharded:  # a forward of one process alone would wait for the others
        modules = [first_bad_module(loop, batch) for batch in bad]
        parts += [f"first in the output of {name}" for name in dict.fromkeys(modules) if name]
    places = sorted(
        {place for found in loop.run.world.gather([places_of(loop, batch) for batch in bad]) for place in found}
    )
    parts += [f"rows {place}" for place in places]
    if gradients := bad_gradients(loop.policy.model):
        parts.append(f"{len(gradients)} gradients affected, first {gradients[0]}")
    return f"step {loop.run.step + 1}: {'; '.join(parts)}; the weights were not updated"


def bad_gradients(module: nn.Module) -> list[str]:
    """Names of parameters whose gradient is not finite."""
    return [name for name, p in module.named_parameters() if p.grad is not None and not _finite(p.grad)]


def first_bad_module(loop: Loop, batch: Batch) -> str | None:
    """Run the forward of a batch again and name the first module whose output is not finite."""
    found: list[str] = []
    names = {module: name or "the model" for name, module in loop.policy.model.named_modules()}

    def watch(module: nn.Module, inputs: Any, output: Any) -> None:
        first = output[0] if isinstance(output, tuple) and output else output
        if not found and isinstance(first, Tensor) and not _finite(first):
            found.append(names[module])

    handles = [module.register_forward_hook(watch) for module in names]
    random = random_state()
    try:
        with torch.no_grad():
            loop.policy.language_model.hidden(batch, (), False)  # not through the wrapper: other processes may be fine
    finally:
        set_random_state(random)
        for handle in handles:
            handle.remove()
    return found[0] if found else None


def places_of(loop: Loop, batch: Batch, most: int = 5) -> str:
    """Places of the rows of a batch, found by reading the data again."""
    run = loop.run
    streamed = [Source(spec, rows_of(run, spec)) for spec in run.config.streamed]
    sources = streamed or filtered(run, read_all(run))
    origins = sorted({origin for origin in batch.origins if origin[0] >= 0})
    places = []
    for entry, number in origins[:most]:
        places += [row.where for row in islice(sources[entry].rows, number, number + 1)]
    left = len(origins) - len(places)
    return ", ".join([*places, *([f"and {left} more"] if left else [])])


def _finite(tensor: Tensor) -> bool:
    local = tensor.to_local() if hasattr(tensor, "to_local") else tensor  # a shard under FSDP2
    return bool(torch.isfinite(local).all()) if local.is_floating_point() else True
