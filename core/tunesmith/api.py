"""The stages of a run as functions: the command line, notebooks and tests call the same ones.

load_config -> start -> prepare -> plan -> train. Each takes what the one before gave.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tunesmith.config import Config
from tunesmith.errors import ConfigError, Problem, errors_of, raise_together
from tunesmith.hooks import Hooks
from tunesmith.run import Run


def start(config: tuple[Config, Hooks], tokenizer: Any = None, model: Any = None) -> Run:
    """A run of a config that the plugins find consistent: `validate` and `inspect` of all, problems together."""
    run = Run(*config, tokenizer=tokenizer, given_model=model)
    raise_together([*errors_of([partial(_check_core, run)]), *run.hooks.validate(run), *run.hooks.inspect(run)])
    return run


def _check_core(run: Run) -> None:
    """Cross-checks of the core's own keys."""
    core, config = run.core, run.config
    problems: list[Problem] = []

    def wrong(key: str, message: str, help: str) -> None:
        problems.extend(config.error(key, message, help).problems)

    if core.datasets and core.pretraining_dataset:
        wrong("pretraining_dataset", "does not go with datasets", "keep one of them")
    if core.pretraining_dataset and core.max_steps is None:
        wrong("pretraining_dataset", "is a stream without an end", "write max_steps: ...")
    if core.pretraining_dataset and core.val_set_size:
        wrong("val_set_size", "can't be held out of a stream", "drop it")
    for one, other in (("save_steps", "saves_per_epoch"), ("eval_steps", "evals_per_epoch")):
        if getattr(core, one) is not None and getattr(core, other) is not None:
            wrong(one, f"and {other} say the same thing twice", "keep one of them")
    if not core.val_set_size:
        for key in ("eval_steps", "evals_per_epoch", "load_best_model_at_end"):
            if getattr(core, key):
                wrong(key, "needs held-out data", "write val_set_size: 0.05")
    if not core.gradient_checkpointing and "gradient_checkpointing_kwargs" in config.document.values:
        wrong(
            "gradient_checkpointing_kwargs",
            "has no effect without gradient_checkpointing",
            "write gradient_checkpointing: true",
        )
    if problems:
        raise ConfigError(problems)


def prepare(run: Run) -> Run:
    """Tokenise the data, or take it from the cache; fills run.tokenizer and run.data."""
    from tunesmith.prepare import prepare as prepare_data

    prepare_data(run)
    return run


def plan(run: Run) -> dict[str, Any]:
    """What the run will do, without reading weights: stages with who answers them, data, steps, parameters."""
    from tunesmith.plan import make_plan

    return make_plan(run)


def verify(run: Run) -> list[dict[str, Any]]:
    """Check the engine's promises on this model and the first row of this data. Raises NumericalError on a mismatch."""
    from tunesmith.verify import verify as check

    return check(run)


@dataclass
class Result:
    """A finished run: the folder of the final model, the last metrics, and the policy that was trained."""

    output_dir: Path
    steps: int
    stopped: str | None
    policy: Any


def train(run: Run) -> Result:
    """Train from the first step, or from the checkpoint that resume_from_checkpoint names, to the final model.

    Raises DataError, ModelError, NumericalError, ...; loop.Interrupted after SIGTERM or SIGINT, checkpoint saved.
    """
    from tunesmith import checkpoint, state
    from tunesmith.distributed import seed_everything
    from tunesmith.feed import count_steps, make_feed
    from tunesmith.loop import Interrupted, Loop
    from tunesmith.record import RunRecord
    from tunesmith.setup import build_policy

    with run.alive():
        run.output_dir.mkdir(parents=True, exist_ok=True)
        folder = checkpoint.choose(run)
        run.world.barrier()  # no process creates files before all have looked
        if run.data is None:
            prepare(run)
        policy = build_policy(run)
        feed = make_feed(run)
        run.total_steps = count_steps(run, feed)
        optimizer = run.hooks.build_optimizer(run, policy.bare)
        scheduler = run.hooks.build_scheduler(run, optimizer, run.total_steps)
        loop = Loop(run, policy, optimizer, scheduler, feed, run.total_steps)
        seed_everything(run.core.seed + run.world.rank)  # each process draws its own dropout
        if folder is not None:
            state.restore(loop, folder)
            run.note("resumed from", folder.name)
        record = RunRecord(run)
        record.write("running")
        try:
            with loop.listening():
                run.hooks.on_start(run, policy)
                loop.fit()
        except Interrupted as error:
            run.interrupted = True
            run.stop(f"{error} after step {run.step}; resume_from_checkpoint: auto goes on")
            run.hooks.on_end(run, policy)
            record.write("interrupted")
            raise
        if run.core.load_best_model_at_end and loop.best.step not in (None, run.step):
            state.load_weights(loop, run.output_dir / f"checkpoint-{loop.best.step}")
            run.note("final model", f"that of step {loop.best.step}, the best {run.core.metric_for_best_model}")
        save_final(run, policy)
        run.hooks.on_end(run, policy)
        record.write("done")
    return Result(run.output_dir, run.step, run.stopped, policy)


def save_final(run: Run, policy: Any) -> None:
    """Write the final model beside its place, then move file by file into output_dir."""
    partial = run.output_dir / ".final.partial"
    if run.world.main:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
    run.world.barrier()
    run.hooks.save_model(run, policy, partial)
    run.world.barrier()
    if run.world.main:
        for path in sorted(partial.iterdir()):
            os.replace(path, run.output_dir / path.name)
        partial.rmdir()
    run.world.barrier()
