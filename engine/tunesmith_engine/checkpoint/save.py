"""Write checkpoints, which are complete or absent and consist of safetensors and JSON only.

A checkpoint is written under a temporary name, flushed to disk, listed with sha256 in manifest.json, and renamed. It
contains everything that the next step depends on, so a resumed run continues bit for bit. Only then do plugins export
the model into it, so an export that fails loses no step.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from tunesmith.errors import ModelError, PluginError, TunesmithError
from tunesmith.run import Run
from tunesmith_engine.runtime.atomic import MANIFEST, clearing, discard, extend, seal, tidy, writing
from tunesmith_engine.runtime.rng import random_state, set_random_state

if TYPE_CHECKING:
    from tunesmith_engine.model.policy import Policy

# trees of JSON values and tensors


def write_tree(path: Path, tree: Any) -> None:
    """Write a tree of JSON values, tensors and arrays to path.json and path.safetensors.

    Neither format can run code when it is read, as a pickle can. A tensor that is in the tree several times, such as a
    buffer that layers share, is written once.
    """
    tensors: dict[str, Tensor] = {}
    text = json.dumps(_strip(tree, tensors, {}))
    path.with_suffix(".json").write_text(text, encoding="utf-8")
    save_file(tensors, path.with_suffix(".safetensors"))


def read_tree(path: Path) -> Any:
    """Read a tree that `write_tree` wrote. Raises ModelError for other files, even if their manifest matches them."""
    try:
        tensors = load_file(path.with_suffix(".safetensors"))
        return _fill(json.loads(path.with_suffix(".json").read_text("utf-8")), tensors)
    except (OSError, ValueError, LookupError, TypeError, RecursionError, SafetensorError) as error:
        message = f"{path.name} of checkpoint {path.parent} can't be read: {type(error).__name__}: {error}"
        raise ModelError(message, code="no-checkpoint", help="resume from another checkpoint") from error


def _strip(tree: Any, tensors: dict[str, Tensor], names: dict[Any, str]) -> Any:
    """Return the tree with a name in place of each tensor and array, which are added to `tensors`.

    `names` has the names of the tensors so far, by their place in memory.
    """
    name = f"t{len(tensors)}"
    if isinstance(tree, np.ndarray):
        tensors[name] = torch.from_numpy(np.array(tree))
        return {"$array": name}
    if isinstance(tree, Tensor):
        place = (tree.data_ptr(), tree.shape, tree.stride(), tree.dtype, tree.device)
        if tree.numel() and place in names:
            return {"$tensor": names[place]}
        names[place] = name
        tensors[name] = tree.detach().cpu().contiguous().clone()  # a clone, because safetensors refuses shared memory
        return {"$tensor": name}
    if isinstance(tree, dict):
        if wrong := [key for key in tree if not isinstance(key, str)]:  # JSON would turn the key 1 into "1"
            raise PluginError(f"a checkpoint can't store the key {wrong[0]!r}: keys of state_dict() must be strings")
        return {key: _strip(value, tensors, names) for key, value in tree.items()}
    return [_strip(value, tensors, names) for value in tree] if isinstance(tree, list | tuple) else tree


def _fill(tree: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(tree, dict):
        if "$tensor" in tree:
            return tensors[tree["$tensor"]]
        if "$array" in tree:
            return tensors[tree["$array"]].numpy()
        return {key: _fill(value, tensors) for key, value in tree.items()}
    return [_fill(value, tensors) for value in tree] if isinstance(tree, list) else tree


# saving


def save(run: Run, policy: Policy, parts: Callable[[], dict[str, Any]], best_step: int | None) -> Path:
    """Write a checkpoint of the current step and return its folder. Call it on all processes.

    `parts` returns trees by file name. Each process writes those whose name begins with "rank-", and the main process
    writes the others. Once they are sealed, the run can resume from them, and plugins export the model into the folder.
    Raises EnvironmentProblem if the disk refuses the files, and the error of a plugin that fails to export, with the
    name of the checkpoint.
    """
    final = run.output_dir / f"checkpoint-{run.step}"
    partial = run.output_dir / f".checkpoint-{run.step}.partial"
    with writing(final.name, run.output_dir, _after_a_full_disk(run)), clearing(partial, run.world.main):
        if run.world.main:
            tidy(run.output_dir)
            partial.mkdir(parents=True)
        run.world.barrier()
        # Every process calls `parts`, because gathering sharded weights takes all of them.
        for name, tree in parts().items():
            if run.world.main or name.startswith("rank-"):
                write_tree(partial / name, tree)
        run.world.barrier()
        if run.world.main:
            seal(partial, final, exported=False)
        run.world.barrier()
    export(run, policy, final)
    if run.world.main:
        rotate(run, best_step)
    run.world.barrier()
    return final


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


def rotate(run: Run, best_step: int | None) -> None:
    """Delete the oldest checkpoints beyond save_total_limit, but neither the best nor the newest."""
    limit = run.core.save_total_limit
    if limit is None:
        return
    # Later steps belong to an abandoned course of the run, and are not counted.
    checkpoints = [(step, path) for step, path in numbered(run.output_dir) if step <= run.step]
    deletable = [path for step, path in checkpoints[:-1] if step != best_step]
    for path in deletable[: max(0, len(checkpoints) - limit)]:
        discard(path)
