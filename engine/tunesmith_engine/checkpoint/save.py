"""Write checkpoints, which are complete or absent and consist of safetensors and JSON only.

A checkpoint is written under a temporary name, flushed to disk, listed with sha256 in manifest.json, and renamed. It
contains everything that the next step depends on, so a resumed run continues bit for bit. Only then do plugins export
the model into it, so an export that fails loses no step.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.errors import EnvironmentProblem, PluginError, TunesmithError
from tunesmith.run import Run
from tunesmith_engine.checkpoint.trees import Copied, copy_tree
from tunesmith_engine.runtime.atomic import (
    MANIFEST,
    Entry,
    clearing,
    discard,
    extend,
    listed,
    read_again,
    seal,
    tidy,
    writing,
)  # fmt: skip
from tunesmith_engine.runtime.rng import random_state, set_random_state

if TYPE_CHECKING:
    from tunesmith_engine.model.policy import Policy

# saving


class Saving:
    """A checkpoint that is being written: under a temporary name until every process has written its part.

    Args:
        run: the run, whose step it is of.
    """

    def __init__(self, run: Run):
        self.run, self.step = run, run.step
        self.final = run.output_dir / f"checkpoint-{run.step}"
        self.partial = run.output_dir / f".checkpoint-{run.step}.partial"
        self.files: dict[str, Entry] = {}
        self.error: Exception | None = None
        self._copies: dict[str, Copied] = {}
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Create the folder. Call it on all processes."""
        with self._keeping():
            if self.run.world.main:
                tidy(self.run.output_dir)
                self.partial.mkdir(parents=True)
        self._share(None)

    def write(self, name: str, copied: Copied) -> None:
        """Write this process's part of a tree to disk, and take its sha256. `seal` raises an error on all processes."""
        if self.error is not None:
            return
        with self._keeping():
            for path in copied.write(self.partial / name):
                self.files |= listed(self.partial, [path])

    def write_later(self, copies: dict[str, Copied]) -> None:
        """Write this process's parts of trees on a thread."""
        self._copies = copies
        self._thread = threading.Thread(target=self._write_all, name="tunesmith-checkpoint", daemon=True)
        self._thread.start()

    def _write_all(self) -> None:
        while self._copies:
            name = next(iter(self._copies))
            self.write(name, self._copies.pop(name))

    @property
    def done(self) -> bool:
        """True if this process has written its part, or failed to."""
        return self._thread is None or not self._thread.is_alive()

    def seal(self) -> None:
        """Wait until all processes have written their parts, then name the checkpoint. Call it on all processes.

        Raises an error of this process; on the other processes, one that names the process that failed.
        """
        world = self.run.world
        if self._thread is not None:
            self._thread.join()
        with clearing(self.partial, world.main):
            shares = self._share(self.files)
            if world.main:
                with self._keeping():
                    self._name({name: entry for own in shares for name, entry in own.items()})
            self._share(None)

    def _name(self, files: dict[str, Entry]) -> None:
        if missing := [name for name in files if not (self.partial / name).is_file()]:
            message = f"{missing[0]} of {self.final.name} was written, but the main process does not see it"
            help = "choose an output_dir on a file system that all processes share"
            raise EnvironmentProblem(message, code="disk", help=help)
        read_again(self.partial)
        seal(self.partial, self.final, files, exported=False)

    def abandon(self) -> None:
        """Wait for the thread, and delete what it wrote. The other processes are not asked."""
        if self._thread is not None:
            self._thread.join()
        if self.run.world.main:
            shutil.rmtree(self.partial, ignore_errors=True)

    @contextlib.contextmanager
    def _keeping(self) -> Iterator[None]:
        """Keep an error of the block for `_share`: if this process raised it at once, the others would wait for it."""
        try:
            with writing(self.final.name, self.run.output_dir, _after_a_full_disk(self.run)):
                yield
        except Exception as error:
            self.error = error

    def _share(self, value: Any) -> list[Any]:
        """Return one value per process, or raise an error on all of them if one has kept an error."""
        shares = self.run.world.gather((value, str(self.error) if self.error else None))
        if self.error is not None:
            raise self.error
        if failed := [(rank, error) for rank, (_, error) in enumerate(shares) if error]:
            rank, error = failed[0]
            message = f"{self.final.name} could not be written by rank {rank}: {error}"
            raise EnvironmentProblem(message, code="disk", help=_after_a_full_disk(self.run))
        return [value for value, _ in shares]


def save(run: Run, policy: Policy, parts: Callable[[], dict[str, Any]], best_step: int | None) -> Path:
    """Write a checkpoint of the current step and return its folder. Call it on all processes.

    `parts` returns trees by file name. Each process writes those whose name begins with "rank-", and its shards of the
    others; the main process writes the rest. Once they are sealed, the run can resume from them, and plugins export the
    model into the folder. Raises EnvironmentProblem if the disk refuses the files, and the error of a plugin that fails
    to export, with the name of the checkpoint.
    """
    saving = Saving(run)
    with clearing(saving.partial, run.world.main):
        saving.begin()
        # Every process calls `parts`, because gathering sharded weights takes all of them.
        for name, tree in parts().items():
            saving.write(name, copy_tree(run.world, tree, run.world.main or name.startswith("rank-")))
        saving.seal()
    export(run, policy, saving.final)
    if run.world.main:
        rotate(run, best_step)
    run.world.barrier()
    return saving.final


def save_later(run: Run, parts: Callable[[], dict[str, Any]]) -> Saving:
    """Copy a checkpoint of the current step to host memory, and write it on a thread. Call it on all processes.

    Nothing is exported into it, because plugins would export the weights of a later step.
    """
    saving = Saving(run)
    with clearing(saving.partial, run.world.main):
        saving.begin()
        trees = parts().items()
        saving.write_later(
            {name: copy_tree(run.world, tree, run.world.main or name.startswith("rank-")) for name, tree in trees}
        )
    return saving


def export(run: Run, policy: Policy, folder: Path) -> None:
    """Add what plugins write in save_model to a sealed checkpoint. Call it on all processes.

    Random numbers that they draw do not change training: the checkpoint has the state from before.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    random = random_state()
    try:
        help = "make room, or keep fewer checkpoints (save_total_limit)"
        with writing(f"the model of {folder.name}", run.output_dir, help), clearing(partial, run.world.main):
            if run.world.main:
                partial.mkdir()
            run.world.barrier()
            run.hooks.save_model(run, policy, partial)
            run.world.barrier()
            if run.world.main:
                extend(folder, partial, exported=True)
            run.world.barrier()
    except TunesmithError as error:
        raise name_kept(error, folder) from error
    finally:
        set_random_state(random)


def check_exported(run: Run, policy: Policy) -> None:
    """Raise PluginError if a trained parameter is written by no plugin's save_model."""
    saved = run.hooks.saved_parameters(run, policy)
    savers = {call.plugin for call in run.hooks.calls("save_model")}
    loader = run.hooks.loader_of(run.policy_spec)
    named = {call.plugin for call in run.hooks.calls("saved_parameters")}
    if run.adapter is None and loader in savers - named:  # a plugin for a model of its own saves that model
        saved |= {name for name, _ in policy.model.named_parameters()}
    unsaved = [name for name, p in policy.model.named_parameters() if p.requires_grad and name not in saved]
    # A head is saved by the plugin that declares it; a classifier's is a part of the model.
    unsaved += [f"heads.{name}" for name in policy.unwrapped.heads if run.hooks.head_owner(name) not in savers]
    if unsaved:
        shown = ", ".join(unsaved[:3]) + (f" and {len(unsaved) - 3} more" if len(unsaved) > 3 else "")
        message = (
            f"trained, but not saved by any plugin: {shown} (plugins that save: {', '.join(sorted(savers)) or 'none'})"
        )
        help = "in the plugin that adds them, write save_model and name them in saved_parameters; or freeze them"
        raise PluginError(message, help=help, code="not-saved")


def is_exported(folder: Path) -> bool:
    """Return True if a valid checkpoint has the files of save_model: their export did not fail and was not killed."""
    return bool(json.loads((folder / MANIFEST).read_text("utf-8")).get("exported", True))


def has_optimizer(folder: Path) -> bool:
    """Return True if a run can resume from a checkpoint: it was not saved with save_only_model."""
    return (folder / "optimizer.json").is_file()


def _after_a_full_disk(run: Run) -> str:
    names = [path.name for _, path in numbered(run.output_dir) if has_optimizer(path)]
    again = f"resume_from_checkpoint: auto resumes from {names[-1]}" if names else "start again"
    return f"make room, or keep fewer checkpoints (save_total_limit); then {again}"


def name_kept(error: TunesmithError, folder: Path) -> TunesmithError:
    """Return the error with the advice to resume from a checkpoint that has every step up to it."""
    *others, last = error.problems
    again = f"no step is lost: resume_from_checkpoint: auto resumes from {folder.name}"
    if not has_optimizer(folder):
        again = f"the weights are in {folder.name}"
    return type(error)([*others, replace(last, help=f"{last.help or 'fix the plugin'}; {again}")])


def numbered(output_dir: Path) -> list[tuple[int, Path]]:
    """Return (step, folder) of each checkpoint, oldest first. They are not checked."""
    checkpoints = []
    for path in output_dir.glob("checkpoint-*"):
        if match := re.fullmatch(r"checkpoint-([0-9]{1,12})", path.name):  # not a copy, such as checkpoint-10-best
            checkpoints.append((int(match[1]), path))
    return sorted(checkpoints)


def rotate(run: Run, best_step: int | None, step: int | None = None) -> None:
    """Delete the oldest checkpoints beyond save_total_limit, but neither the best nor the newest, that of `step`."""
    limit = run.core.save_total_limit
    if limit is None:
        return
    # Later steps belong to an abandoned course of the run, and are not counted.
    checkpoints = [(number, path) for number, path in numbered(run.output_dir) if number <= (step or run.step)]
    deletable = [path for number, path in checkpoints[:-1] if number != best_step]
    for path in deletable[: max(0, len(checkpoints) - limit)]:
        discard(path)
