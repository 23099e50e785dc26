"""Train a run from its first line to its last."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from tunesmith.run import Run
from tunesmith_engine.checkpoint import disk, resume
from tunesmith_engine.data.loader import StreamLoader, build_loader, count_steps
from tunesmith_engine.data.prepare import prepare
from tunesmith_engine.model.build import build_policy
from tunesmith_engine.model.policy import Policy
from tunesmith_engine.model.reference import precompute
from tunesmith_engine.runtime.atomic import clearing, flush, read_again, tidy, writing
from tunesmith_engine.runtime.memory_used import Watch
from tunesmith_engine.runtime.record import RunRecord
from tunesmith_engine.runtime.rng import seed_everything
from tunesmith_engine.training.loop import Interrupted, Loop
from tunesmith_engine.training.state import TrainState


@dataclass
class Result:
    """A finished run: the folder of the final model, the number of steps, why it ended early, and the policy."""

    output_dir: Path
    steps: int
    stopped: str | None
    policy: Policy


def train(run: Run) -> Result:
    """Run everything from rows to the final model; see `tunesmith.api.train` for the errors it raises."""
    with run.alive():
        folder = resume.choose(run)
        run.world.barrier()  # no process creates files before all have looked
        make_folder(run)
        record = RunRecord(run)
        try:
            state = begin(run, folder)
            loop = Loop(state)
            record.memory = Watch(run.device, state.policy.model)
            record.write("running")
            with loop.listening():
                run.hooks.on_start(run, state.policy)
                loop.fit()
            finish(state)
        except Interrupted as error:
            run.interrupted = True
            run.stop(f"{error} after step {run.step}; resume_from_checkpoint: auto resumes here")
            run.hooks.on_end(run, state.policy)
            record.write("interrupted")
            raise
        except Exception:
            record.crashed()
            raise
        record.write("done")
    return Result(run.output_dir, run.step, run.stopped, state.policy)


def make_folder(run: Run) -> None:
    """Create output_dir. Raises EnvironmentProblem if the disk refuses it."""
    help = "choose a place with room, and with write permission"
    with writing(f"output_dir {run.output_dir}", run.output_dir, help, run.config.place("output_dir")):
        run.output_dir.mkdir(parents=True, exist_ok=True)


def begin(run: Run, folder: Path | None) -> TrainState:
    """Set up everything before the first step: data, policy, optimizer, schedule, and the checkpoint to resume."""
    if run.data is None:
        prepare(run)
    if run.world.main:
        tidy(run.output_dir)
    run.world.barrier()
    policy = build_policy(run)
    if run.core.precompute_ref_log_probs:
        precompute(run, policy)
    loader = build_loader(run)
    run.total_steps = count_steps(run, loader)
    optimizer = run.hooks.build_optimizer(run, policy.unwrapped)
    needed = disk.bytes_of(run, policy.model, full_export=run.adapter is None)
    disk.fits(run, needed, isinstance(optimizer, torch.optim.Adam))  # AdamW is a subclass
    scheduler = run.hooks.build_scheduler(run, optimizer, run.total_steps)
    state = TrainState(run, policy, optimizer, scheduler, loader, run.total_steps)
    seed_everything(run.core.seed + run.world.rank)  # each process draws its own dropout
    if folder is not None:
        state.restore(folder)
        run.note("resumed from", folder.name)
        resume.abandon(run)
    return state


def finish(state: TrainState) -> None:
    """Do everything after the last step: load the best weights if asked for, and save the final model."""
    run, best = state.run, state.best.step
    if run.core.load_best_model_at_end and best not in (None, run.step):
        state.load_weights(run.output_dir / f"checkpoint-{best}")
        run.note("final model", f"that of step {best}, the best {run.core.metric_for_best_model}")
    if isinstance(state.loader, StreamLoader):
        for name, counts in state.loader.counts.items():
            counts.report(run, name)
    save_final(run, state.policy)
    run.hooks.on_end(run, state.policy)


def save_final(run: Run, policy: Policy) -> None:
    """Write the final model to a temporary folder, then move it file by file into output_dir."""
    partial = run.output_dir / ".final.partial"
    help = "make room; then resume_from_checkpoint: auto resumes from the last checkpoint"
    with writing("the final model", run.output_dir, help), clearing(partial, run.world.main):
        if run.world.main:
            tidy(run.output_dir)
            partial.mkdir()
        run.world.barrier()
        run.hooks.save_model(run, policy, partial)
        run.world.barrier()
        if run.world.main:
            read_again(partial)
            for path in sorted(partial.iterdir()):
                flush(path)
                target = run.output_dir / path.name
                if target.is_dir():
                    shutil.rmtree(target)
                os.replace(path, target)
            partial.rmdir()
            flush(run.output_dir)
        run.world.barrier()
