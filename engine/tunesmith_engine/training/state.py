"""What a checkpoint of a training loop holds, and how a loop takes it back."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch.distributed.checkpoint import state_dict as dcp

from tunesmith.errors import ConfigError, ModelError, PluginError
from tunesmith_engine.batch.examples import ExampleStore
from tunesmith_engine.checkpoint.resume import check_same, versions, weights
from tunesmith_engine.checkpoint.save import read_tree
from tunesmith_engine.runtime.rng import random_state, seed_everything, set_random_state

if TYPE_CHECKING:
    from tunesmith.run import Run
    from tunesmith_engine.training.loop import Loop


def gather(loop: Loop) -> tuple[dict[str, Any], dict[str, Any]]:
    """Trained weights and optimizer state by name, whole, on the main process. On all processes."""
    offload = loop.run.world.size > 1
    options = dcp.StateDictOptions(full_state_dict=True, cpu_offload=offload, ignore_frozen_params=True)
    root: Any = loop.policy.module
    return dcp.get_model_state_dict(root, options=options), dcp.get_optimizer_state_dict(
        root, loop.optimizer, options=options
    )


def shared(loop: Loop) -> dict[str, Any]:
    """What is the same on all processes."""
    run = loop.run
    return {
        "step": run.step,
        "total_steps": loop.total_steps,
        "stopped": None if run.interrupted else run.stopped,
        "stopper": run.stopper,
        "tokens": loop.tokens,
        "bad_steps": loop.bad_steps,
        "best": [loop.best.value, loop.best.step, run.core.metric_for_best_model, run.core.greater_is_better],
        "scheduler": loop.scheduler.state_dict(),
        "states": {name: state.state_dict() for name, state in run.states.items()},
        "config": run.config.resolved(),
        "digests": run.config.digests(),
        "plugins": versions(run),
        "data": run.data.fingerprint if run.data else "",
        "content": run.data.content if run.data and run.world.main else None,  # the main process writes it
        "weights": weights(run),
        "world": run.world.size,
    }


def own(loop: Loop) -> dict[str, Any]:
    """What is this process's own: random numbers, the place in the data, and examples that are still being reused."""
    reused = loop.run.hooks.has("expand") and loop.used < loop.run.reuse
    store = ExampleStore.collect(loop.round) if reused else None
    pending = None
    if store is not None:
        pending = {"arrays": store.arrays, "fields": store.fields, "used": loop.used, "idle": loop.idle}
    return {"random": random_state(), "loader": loop.loader.state_dict(), "pending": pending}


def restore(loop: Loop, folder: Path) -> None:
    """Take everything back from a checkpoint: weights, optimizer, schedule, random numbers, place in the data.

    Raises ConfigError if the checkpoint is of another run, ModelError if it is not what a run of ours writes.
    """
    try:
        _restore(loop, folder, read_tree(folder / "state"))
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        message = f"checkpoint {folder} can't be restored: {type(error).__name__}: {error}"
        raise ModelError(message, code="no-checkpoint", help="go on from another checkpoint") from error


def _restore(loop: Loop, folder: Path, state: dict[str, Any]) -> None:
    run = loop.run
    changed = check_same(run, state)
    options = [{k: v for k, v in group.items() if k != "params"} for group in loop.optimizer.param_groups]
    restore_weights(loop, folder)
    if changed:
        adopt(loop, options, state["step"])
    else:
        loop.scheduler.load_state_dict(state["scheduler"])
    if state["total_steps"] != loop.total_steps:
        stretch(loop, state["total_steps"])
    if state["stopped"] and state["total_steps"] == loop.total_steps and same_keys(run, state):
        run.stopped, run.stopper = state["stopped"], state["stopper"]
    run.step, loop.tokens, loop.bad_steps = state["step"], state["tokens"], state["bad_steps"]
    restore_best(loop, *state["best"])
    for name, saved in state["states"].items():
        if name in run.states:
            run.states[name].load_state_dict(saved)
    restore_own(loop, folder, state["world"])


def restore_own(loop: Loop, folder: Path, processes: int) -> None:
    """This process's own part. Of another number of processes only the place in the data holds, which all share:
    examples being reused are made anew, and random numbers begin anew, the same at each such resumption."""
    run = loop.run
    same = processes == run.world.size
    mine = read_tree(folder / f"rank-{run.world.rank if same else 0}")
    loop.loader.load_state_dict(mine["loader"])
    if not same:
        seed_everything(run.core.seed + run.world.rank + 7919 * run.step)  # a prime: no two steps share their numbers
        return
    if pending := mine["pending"]:
        loop.round, loop.used = list(ExampleStore(pending["arrays"], pending["fields"])), pending["used"]
        loop.idle = pending["idle"]
    set_random_state(mine["random"])


def restore_weights(loop: Loop, folder: Path) -> None:
    """Trained weights and optimizer state from a checkpoint."""
    load_weights(loop, folder)
    optimizer = read_tree(folder / "optimizer")
    root: Any = loop.policy.module
    dcp.set_optimizer_state_dict(root, loop.optimizer, optimizer, options=dcp.StateDictOptions(full_state_dict=True))


def same_keys(run: Run, state: dict[str, Any]) -> bool:
    """Whether what stopped the run would do so again: the plugin is active, and its keys are as they were."""
    plugin = run.hooks.by_name.get(state["stopper"])
    keys = plugin.declaration.settings.model_fields if plugin and plugin.declaration.settings else ()
    now, before = run.config.digests(), state["digests"]
    return plugin is not None and all(now[key] == before.get(key) for key in keys)


def adopt(loop: Loop, options: list[dict[str, Any]], step: int) -> None:
    """Go on with the options that the optimizer has now, and with the schedule of now as it is at this step."""
    for group, now in zip(loop.optimizer.param_groups, options, strict=True):
        group.update(now)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch expects updates between the steps of a schedule
        for _ in range(step):
            loop.scheduler.step()


def stretch(loop: Loop, before: int) -> None:
    """The schedule has another length than when the checkpoint was written: take this step's rate from the new one."""
    loop.run.note("schedule", f"stretched from {before} to {loop.total_steps} steps")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch would have get_lr called from step() alone
        rates = loop.scheduler.get_lr()
    for group, rate in zip(loop.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate


def restore_best(loop: Loop, value: float | None, step: int | None, metric: str, greater: bool) -> None:
    """The best evaluation so far, if it is still measured the same way and its checkpoint, if one was kept, stands."""
    run = loop.run
    kept = not run.core.load_best_model_at_end or (run.output_dir / f"checkpoint-{step}").is_dir()
    if (metric, greater) == (run.core.metric_for_best_model, run.core.greater_is_better) and kept:
        loop.best.value, loop.best.step = value, step
    elif step is not None:
        run.note("best so far", f"forgotten: {metric} of step {step} can't be compared with, or its checkpoint is gone")


def load_weights(loop: Loop, folder: Path) -> None:
    """Trained weights from a checkpoint; every trained parameter has to be in it."""
    trainable = read_tree(folder / "trainable")
    trained = {f"module.{name}" for name, p in loop.policy.model.named_parameters() if p.requires_grad}
    if missing := sorted(trained - set(trainable)):
        raise PluginError(f"checkpoint {folder} lacks trained weights: {', '.join(missing[:3])}")
    own = {f"module.{name}": p.shape for name, p in loop.policy.model.named_parameters()}
    if other := [name for name in sorted(trained) if trainable[name].shape != own[name]]:
        name = other[0].removeprefix("module.")
        message = f"can't resume: {name} is {list(trainable[other[0]].shape)} in {folder}, now {list(own[other[0]])}"
        raise ConfigError(message, code="resume", help="special_tokens adds other tokens than before: change it back")
    root: Any = loop.policy.module
    dcp.set_model_state_dict(root, trainable, options=dcp.StateDictOptions(full_state_dict=True, strict=False))
