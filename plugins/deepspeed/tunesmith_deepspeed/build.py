"""Start the processes and DeepSpeed."""

from __future__ import annotations

from dataclasses import replace

from tunesmith import Parallelism, Replicated, Run, start_world
from tunesmith_deepspeed import library
from tunesmith_deepspeed.checks import KNOWN, check
from tunesmith_deepspeed.parallelism import ZeroParallelism


def build(run: Run) -> Parallelism:
    """Return the parallelism of a run. Raises ConfigError for what contradicts the processes or the device."""
    zero = check(run)
    world = start_world(run)
    if world.size == 1 and not run.trains:
        return Replicated(world)  # a saved model is used: there is nothing to divide
    world = replace(world, sharded=zero.stage == 3, kind=f"DeepSpeed {zero.describe()}")
    core, config = run.core, run.config
    wanted = zero.values.get("bf16", {}).get("enabled")
    if wanted is not None and wanted != world.half:
        number = "bfloat16" if world.half else "float32"
        message = f"sets bf16.enabled to {str(wanted).lower()}, but the run computes in {number}"
        raise config.error("deepspeed", message, 'write "bf16": {"enabled": "auto"}, and bf16: ... in the YAML file')
    size = core.micro_batch_size * core.gradient_accumulation_steps * world.size
    if zero.values.get("train_batch_size", size) != size:
        message = f"sets train_batch_size to {zero.values['train_batch_size']}, but a step has {size} packs"
        raise config.error("deepspeed", message, 'write "train_batch_size": "auto"')
    notes = list(zero.notes)
    if core.optimizer not in KNOWN:
        notes.append(f"{core.optimizer} gets flat parts of weights, which is right if it treats each number alone")
    if notes:
        run.note("deepspeed", "; ".join(notes))
    library.start(run, world.device)
    return ZeroParallelism(run, world, zero)
