"""Train a run from its first line to its last."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from tunesmith.checks import holds_out
from tunesmith.errors import ConfigError, EnvironmentProblem, TunesmithError
from tunesmith.run import Run
from tunesmith_engine.checkpoint import disk, resume
from tunesmith_engine.checkpoint.save import check_exported, export, is_exported, name_kept, numbered
from tunesmith_engine.data.prepare import prepare
from tunesmith_engine.model.build import build_policy
from tunesmith_engine.model.optimizers import switch
from tunesmith_engine.model.parameter_groups import check_factors
from tunesmith_engine.model.policy import Policy
from tunesmith_engine.model.reference import precompute
from tunesmith_engine.rounds.build import build_rounds, count_steps
from tunesmith_engine.rounds.rewards import Rewards
from tunesmith_engine.rounds.rollout import Rollouts
from tunesmith_engine.rounds.streamed import StreamedRounds
from tunesmith_engine.runtime import lock
from tunesmith_engine.runtime.atomic import clearing, flush, move, read_again, tidy, writing
from tunesmith_engine.runtime.memory_used import Watch
from tunesmith_engine.runtime.peers import watching
from tunesmith_engine.runtime.record import RunRecord
from tunesmith_engine.runtime.rng import seed_everything
from tunesmith_engine.runtime.signals import Interrupted
from tunesmith_engine.training.evaluation import check_metric, evaluate
from tunesmith_engine.training.loop import Loop
from tunesmith_engine.training.outline import memory_needed, outline
from tunesmith_engine.training.result import Result
from tunesmith_engine.training.state import TrainState, load_weights

AGAIN = "resume_from_checkpoint: auto resumes here"


Explain = Callable[[Run, BaseException], TunesmithError]


def train(run: Run, explain: Explain | None = None) -> Result:
    """Run everything from rows to the final model; see `tunesmith.api.train` for the errors it raises.

    explain: returns the error to raise instead of one for lack of memory, once the data is prepared.
    """
    with run.alive():
        make_folder(run)
        lock.take(run)
        folder = resume.choose(run)
        resume.check_resumable(run, folder)
        run.world.barrier()  # no process creates files before all have looked
        record = RunRecord(run)
        try:
            with watching(run, record.lost), explained(run, explain):
                state = begin(run, folder)
                loop = Loop(state)
                record.memory = run.memory_used = Watch(run.device, state.policy.model)
                record.write("running")
                check_metric(run, state.policy, state.rounds)
                with state.closing(), loop.signals.listening(), run.hooks.logging(run):
                    run.hooks.on_start(run, state.policy)
                    if folder is not None and folder.parent.samefile(run.output_dir) and not is_exported(folder):
                        with state.evaluated():
                            export(run, state.policy, folder)  # failed, or was killed
                    loop.fit()
                finish(state)
        except Interrupted as error:
            run.interrupted = True
            again = "its checkpoint has weights only" if run.core.save_only_model else AGAIN
            run.stop(f"{error} after step {run.step}; {again}")
            run.progress("")
            run.hooks.on_end(run, state.policy)
            record.write("interrupted")
            raise
        except KeyboardInterrupt:
            record.write("interrupted") if record.begun else None
            raise
        except BaseException as error:
            record.crashed()
            # SystemExit(0) must not end the process as if the run were done. What a plugin's object raises outside of a
            # hook, such as an optimizer's step, is the plugin's; except for memory, which may run out anywhere.
            ours = isinstance(error, TunesmithError | MemoryError | torch.OutOfMemoryError)
            if isinstance(error, Exception) and (ours or run.hooks.owner_of(error) is None):
                raise
            raise run.hooks.blame(error) from error
        record.write("done")
    best = run.output_dir / f"checkpoint-{state.best.step}"
    kept = best if state.best.step is not None and best.is_dir() else None
    return Result(run.output_dir, run.step, run.stopped, state.policy, loop.history, kept)


@contextlib.contextmanager
def explained(run: Run, explain: Explain | None) -> Iterator[None]:
    """Replace an error of the block that is, or has as its cause, a lack of memory."""
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and not out_of_memory(cause):
            cause = cause.__cause__
        if cause is None or explain is None or run.data is None:
            raise
        run.progress("counting the memory of a step")
        raise explain(run, cause) from error


def out_of_memory(error: BaseException) -> bool:
    """Return True for an error of Python or torch for lack of memory. On a CPU, torch has no class for it."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    )


def evaluate_only(run: Run) -> dict[str, float]:
    """Return what an evaluation measures without training; see `tunesmith.api.evaluate`."""
    with run.alive():
        if not (holds_out(run) or run.hooks.has("evaluate")):
            help = "write val_set_size: 0.05, or test_datasets: ..."
            raise ConfigError("there is nothing to evaluate on", where=run.config.place(()), help=help, code="no-data")
        folder = resume.choose(run) if run.core.resume_from_checkpoint is not None else None
        if run.data is None:
            prepare(run)
        policy = build_policy(run)
        if folder is not None:
            load_weights(run, policy, folder)
        return evaluate(run, policy, run.data.eval if run.data else None, build_rounds(run, policy))


def make_folder(run: Run) -> None:
    """Create output_dir. Raises EnvironmentProblem if that is not possible."""
    try:
        run.output_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"output_dir {run.output_dir} could not be created: {error.strerror}"
        help = "choose a place with room, and with write permission"
        raise EnvironmentProblem(message, where=run.config.place("output_dir"), help=help, code="disk") from error


def begin(run: Run, folder: Path | None) -> TrainState:
    """Set up everything before the first step: data, policy, optimizer, schedule, and the checkpoint to resume."""
    if run.data is None:
        prepare(run)
    if run.world.main:
        tidy(run.output_dir)
    run.world.barrier()
    rewards = run.owned(Rewards) if run.rollout is not None else None  # its processes start while the model is loaded
    policy = build_policy(run)
    check_exported(run, policy)
    if run.core.precompute_ref_log_probs:
        run.progress("computing log-probabilities of the reference")
        precompute(run, policy)
    rounds = build_rounds(run, policy)
    if isinstance(rounds, Rollouts) and run.core.resume_from_checkpoint is None and run.world.main:
        rounds.generator.journal.clear()  # of an earlier run in this folder
    if rewards is not None:
        rewards.ready()
    run.total_steps = count_steps(run, rounds)
    optimizer = run.hooks.build_optimizer(run, policy.unwrapped)
    check_factors(run, policy.unwrapped, optimizer)
    needed = disk.bytes_of(run, policy.unwrapped, run.adapter is None, optimizer)
    disk.fits(run, needed)
    optimizer = run.parallelism.prepare_optimizer(policy.module, optimizer)
    scheduler = run.hooks.build_scheduler(run, optimizer, run.total_steps)
    state = TrainState(run, policy, optimizer, scheduler, rounds, run.total_steps)
    run.outline = outline(run, policy.unwrapped, rounds, run.total_steps)
    run.outline["memory"] = memory_needed(run, policy.unwrapped, optimizer)
    seed_everything(run.core.seed + run.world.data.rank)  # each process draws its own dropout
    if folder is not None:
        run.progress(f"restoring {folder.name}")
        state.restore(folder)
        run.note("resumed from", folder.name)
        resume.abandon(run)
    return state


def finish(state: TrainState) -> None:
    """Do everything after the last step: load the best weights if asked for, and save the final model."""
    run, best = state.run, state.best.step
    switch(state.optimizer, "eval")
    if run.core.load_best_model_at_end and best not in (None, run.step):
        load_weights(run, state.policy, run.output_dir / f"checkpoint-{best}")
        run.outline["model_step"] = best
        run.note("final model", f"that of step {best}, the best {run.core.metric_for_best_model}")
    if isinstance(state.rounds, StreamedRounds):
        for name, counts in state.rounds.counts.items():
            counts.report(run, name)
    run.progress("saving the final model")
    save_final(run, state.policy)
    run.progress("")
    run.hooks.on_end(run, state.policy)


def save_final(run: Run, policy: Policy) -> None:
    """Write the final model to a temporary folder, then move it file by file into output_dir.

    Raises an error that names the newest checkpoint, from which the run can resume.
    """
    try:
        _save_final(run, policy)
    except TunesmithError as error:
        checkpoints = numbered(run.output_dir)
        if not checkpoints:
            raise
        raise name_kept(error, checkpoints[-1][1]) from error


def _save_final(run: Run, policy: Policy) -> None:
    partial = run.output_dir / ".final.partial"
    with writing("the final model", run.output_dir, "make room"), clearing(partial, run.world.main):
        if run.world.main:
            tidy(run.output_dir)
            partial.mkdir()
        run.world.barrier()
        run.hooks.save_model(run, policy, partial)
        run.world.barrier()
        if run.world.main:
            read_again(partial)
            for path in partial.iterdir():
                flush(path)
            move(partial, run.output_dir)
        run.world.barrier()
