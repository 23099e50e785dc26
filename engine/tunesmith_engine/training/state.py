"""The state of a training run: everything that a checkpoint contains, and how a run restores it."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from tunesmith.errors import ConfigError, ModelError, NumericalError, PluginError
from tunesmith.run import Run
from tunesmith_engine.checkpoint.resume import check_same, versions, weights
from tunesmith_engine.checkpoint.save import Saving, rotate, save, save_later
from tunesmith_engine.checkpoint.trees import read_tree
from tunesmith_engine.model.optimizers import options, set_rate, switch
from tunesmith_engine.model.parallelism import full_shape
from tunesmith_engine.model.policy import Policy
from tunesmith_engine.rounds.rounds import Round, Rounds
from tunesmith_engine.runtime.rng import random_state, seed_everything, set_random_state
from tunesmith_engine.training.evaluation import Best


@dataclass
class TrainState:
    """The values that change from step to step. `run.step` is one of them: plugins read the step there.

    tokens: input tokens so far, over all processes. bad_steps: steps in a row whose loss or gradient was not finite.
    saving: the checkpoint that is written while training goes on.
    """

    run: Run
    policy: Policy
    optimizer: Any
    scheduler: Any
    rounds: Rounds
    total_steps: int
    tokens: int = 0
    bad_steps: int = 0
    best: Best = field(default_factory=Best)
    round: Round | None = None
    saving: Saving | None = None

    @property
    def epoch(self) -> float:
        """Passes over the data so far; 0 for a stream."""
        rounds = self.rounds
        return self.run.step / (rounds.per_epoch * rounds.steps) if rounds.per_epoch else 0.0

    @contextlib.contextmanager
    def evaluated(self) -> Iterator[None]:
        """Run the block with the weights to evaluate and to save, if the optimizer has others for gradients."""
        switch(self.optimizer, "eval")
        try:
            yield
        finally:
            self.policy.reshard()  # the next forward reads the weights anew
            switch(self.optimizer, "train")

    def save(self) -> Path:
        """Write a checkpoint of this step and return its folder. Call it on all processes."""
        self.settle()
        with self.evaluated():
            return save(self.run, self.policy, self.trees, self.best.step)

    def save_later(self) -> None:
        """Write a checkpoint of this step while training goes on, if the run wants that. Call it on all processes."""
        if not self.run.core.async_save:
            self.save()
            return
        self.settle()
        with self.evaluated():
            self.saving = save_later(self.run, self.trees)

    def settle(self, wait: bool = True) -> None:
        """Seal the checkpoint that is being written, and raise the error of its writer. Call it on all processes.

        Without `wait`, do so only if it is written everywhere.
        """
        saving, world = self.saving, self.run.world
        if saving is None or (not wait and world.maximum(int(not saving.done))):
            return
        self.saving = None
        saving.seal()
        if world.main:
            rotate(self.run, self.best.step, saving.step)
        world.barrier()

    @contextlib.contextmanager
    def closing(self) -> Iterator[None]:
        """If the block fails, seal the checkpoint that is being written, or delete it: its thread ends in any case."""
        try:
            yield
        except BaseException as error:
            if self.saving is None:
                raise
            everywhere = isinstance(error, NumericalError) and error.problems[0].code == "not-finite"  # of a step
            if self.run.world.size == 1 or everywhere:
                with contextlib.suppress(Exception):  # the first error matters
                    self.settle()
            else:
                self.saving.abandon()
            raise

    def trees(self) -> dict[str, Any]:
        """Return the trees of a checkpoint by file name. Call it on all processes."""
        parallelism, module = self.run.parallelism, self.policy.module
        kept = (
            {} if self.run.core.save_only_model else {"optimizer": parallelism.optimizer_state(module, self.optimizer)}
        )
        return {
            "trainable": parallelism.model_state(module),
            **kept,
            "state": self._shared(),
            f"rank-{self.run.world.rank}": self._own(),
        }

    def _shared(self) -> dict[str, Any]:
        """Return what is the same on all processes."""
        run = self.run
        return {
            "step": run.step,
            "total_steps": self.total_steps,
            "stopped": None if run.interrupted else run.stopped,
            "stopper": run.stopper,
            "tokens": self.tokens,
            "bad_steps": self.bad_steps,
            "best": [self.best.value, self.best.step, run.core.metric_for_best_model, run.core.greater_is_better],
            "scheduler": self.scheduler.state_dict(),
            "states": {name: state.state_dict() for name, state in run.states.items()},
            "config": run.config.resolved(),
            "digests": run.config.digests(),
            "plugins": versions(run),
            "data": run.data.fingerprint if run.data else "",
            "content": run.data.content if run.data and run.world.main else None,  # the main process writes it
            "weights": weights(run),
            "world": run.world.size,
            "rounds": self.rounds.state_dict(),
            "round": self.round.state_dict() if self.round and not self.round.done and run.world.main else None,
            "data_processes": run.world.data.size,
        }

    def _own(self) -> dict[str, Any]:
        """Return what only this process has: its random numbers."""
        return {"random": random_state()}

    def restore(self, folder: Path) -> None:
        """Restore everything from a checkpoint: weights, optimizer, schedule, random numbers, place in the data.

        Raises ConfigError for a checkpoint of another run, and ModelError for one that has another format.
        """
        try:
            self._restore(folder, read_tree(folder / "state"))
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            message = f"checkpoint {folder} can't be restored: {type(error).__name__}: {error}"
            raise ModelError(message, code="no-checkpoint", help="resume from another checkpoint") from error

    def _restore(self, folder: Path, saved: dict[str, Any]) -> None:
        run = self.run
        changed = check_same(run, saved)
        before = options(self.optimizer)
        self.restore_weights(folder)
        if changed:
            self._adopt(before, saved["step"])
        else:
            self.scheduler.load_state_dict(saved["scheduler"])
        if saved["total_steps"] != self.total_steps:
            self._stretch(saved["total_steps"])
        if saved["stopped"] and saved["total_steps"] == self.total_steps and same_keys(run, saved):
            run.stopped, run.stopper = saved["stopped"], saved["stopper"]
        run.step, self.tokens, self.bad_steps = saved["step"], saved["tokens"], saved["bad_steps"]
        self._restore_best(*saved["best"])
        for name, state in saved["states"].items():
            if name in run.states:
                run.states[name].load_state_dict(state)
        self.rounds.load_state_dict(saved["rounds"])
        self.round = Round.from_state(saved["round"]) if saved["round"] else None
        self._restore_own(folder, (saved["world"], saved["data_processes"]))

    def _restore_own(self, folder: Path, layout: tuple[int, int]) -> None:
        """Restore this process's own part.

        With another number of processes, or of those with different examples, random numbers start anew, equally each
        time such a checkpoint is resumed: those of a process belong to its share of the examples.
        """
        run = self.run
        if layout != (run.world.size, run.world.data.size):
            if draws_in_training(self.policy.unwrapped):
                run.note("dropout", "draws other random numbers than on as many processes as before")
            seed_everything(
                run.core.seed + run.world.data.rank + 7919 * run.step
            )  # a prime: no two steps share numbers
            return
        set_random_state(read_tree(folder / f"rank-{run.world.rank}")["random"])

    def restore_weights(self, folder: Path) -> None:
        """Load trained weights and optimizer state from a checkpoint."""
        load_weights(self.run, self.policy, folder)
        state = read_tree(folder / "optimizer", dict(self.policy.unwrapped.named_parameters()))
        self.run.parallelism.load_optimizer_state(self.policy.module, self.optimizer, state)
        switch(self.optimizer, "train")

    def _adopt(self, before: list[dict[str, Any]], step: int) -> None:
        """Keep the optimizer options and the schedule of this run, and advance the schedule to a step."""
        for group, now in zip(self.optimizer.param_groups, before, strict=True):
            group.update(now)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch expects an update between two steps of a schedule
            for _ in range(step):
                self.scheduler.step()

    def _stretch(self, before: int) -> None:
        """Set this step's learning rate from a schedule whose length differs from that in the checkpoint."""
        change = "stretched" if self.total_steps > before else "shortened"
        self.run.note("schedule", f"{change} from {before} to {self.total_steps} steps")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch expects get_lr to be called by step() only
            rates = self.scheduler.get_lr()
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            set_rate(group, rate)

    def _restore_best(self, value: float | None, step: int | None, metric: str, greater: bool) -> None:
        """Restore the best evaluation, if the metric is the same and its checkpoint, if one was kept, exists."""
        run = self.run
        kept = not run.core.load_best_model_at_end or (run.output_dir / f"checkpoint-{step}").is_dir()
        if (metric, greater) == (run.core.metric_for_best_model, run.core.greater_is_better) and kept:
            self.best = Best(value, step)
            run.best = (step, value) if step is not None and value is not None else None
        elif step is not None:
            run.note("best so far", f"discarded: {metric} of step {step} can't be compared, or its checkpoint is gone")


def load_weights(run: Run, policy: Policy, folder: Path) -> None:
    """Load trained weights from a checkpoint. Raises PluginError or ConfigError if names or shapes differ."""
    parameters = dict(policy.unwrapped.named_parameters())
    trainable = read_tree(folder / "trainable", parameters)
    trained = {name for name, p in parameters.items() if p.requires_grad}
    if missing := sorted(trained - set(trainable)):
        raise PluginError(f"checkpoint {folder} has no weights for {', '.join(missing[:3])}")
    shapes = {name: full_shape(p) for name, p in parameters.items()}
    if different := [name for name in sorted(trained) if trainable[name].shape != shapes[name]]:
        saved, now = list(trainable[different[0]].shape), list(shapes[different[0]])
        message = f"can't resume: {different[0].removeprefix('module.')} is {saved} in {folder}, now {now}"
        raise ConfigError(message, code="resume", help="special_tokens adds other tokens than before: change it back")
    run.parallelism.load_model_state(policy.module, trainable)


def draws_in_training(module: nn.Module) -> bool:
    """Return True if a forward in training may draw random numbers: the module has dropout, or its attention has."""
    parts = list(module.modules())
    attention = [getattr(part, "attention_dropout", 0.0) for part in parts]
    dropout = [part.p for part in parts if isinstance(part, nn.modules.dropout._DropoutNd)]
    return any(isinstance(p, float) and p > 0 for p in [*attention, *dropout])


def same_keys(run: Run, saved: dict[str, Any]) -> bool:
    """Return True if the plugin that stopped the run is active with the same keys, and so would stop it again."""
    plugin = run.hooks.by_name.get(saved["stopper"])
    keys = plugin.declaration.settings.model_fields if plugin and plugin.declaration.settings else ()
    now, before = run.config.digests(), saved["digests"]
    return plugin is not None and all(now[key] == before.get(key) for key in keys)
