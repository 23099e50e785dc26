"""Checkpoints: complete or absent, safetensors and JSON only, checked before use.

A checkpoint is written beside its name, flushed to disk, listed with sha256 in manifest.json, and renamed into place.
Everything that the next step depends on is in it, so a resumed run goes on bit for bit.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from tunesmith.errors import ModelError, PluginError
from tunesmith.run import Run
from tunesmith_engine.runtime.atomic import clearing, discard, seal, tidy, writing

if TYPE_CHECKING:
    from tunesmith_engine.model.policy import Policy

# trees of JSON values and tensors


def write_tree(path: Path, tree: Any) -> None:
    """Write JSON values with tensors and arrays among them as path.json and path.safetensors."""
    tensors: dict[str, Tensor] = {}
    text = json.dumps(_strip(tree, tensors))
    path.with_suffix(".json").write_text(text, encoding="utf-8")
    save_file(tensors, path.with_suffix(".safetensors"))


def read_tree(path: Path) -> Any:
    """What `write_tree` wrote. Raises ModelError for files that are not like that, whatever their manifest says."""
    try:
        tensors = load_file(path.with_suffix(".safetensors"))
        return _fill(json.loads(path.with_suffix(".json").read_text("utf-8")), tensors)
    except (OSError, ValueError, LookupError, TypeError, RecursionError, SafetensorError) as error:
        message = f"{path.name} of checkpoint {path.parent} can't be read: {type(error).__name__}: {error}"
        raise ModelError(message, code="no-checkpoint", help="go on from another checkpoint") from error


def _strip(tree: Any, tensors: dict[str, Tensor]) -> Any:
    """The tree with tensors and arrays taken out by number."""
    name = f"t{len(tensors)}"
    if isinstance(tree, np.ndarray):
        tensors[name] = torch.from_numpy(np.array(tree))
        return {"$array": name}
    if isinstance(tree, Tensor):
        tensors[name] = tree.detach().cpu().contiguous().clone()  # clones: safetensors refuses shared memory
        return {"$tensor": name}
    if isinstance(tree, dict):
        if wrong := [key for key in tree if not isinstance(key, str)]:
            raise PluginError(f"a checkpoint can't keep the key {wrong[0]!r}: state_dict() has to have words as keys")
        return {key: _strip(value, tensors) for key, value in tree.items()}
    return [_strip(value, tensors) for value in tree] if isinstance(tree, list | tuple) else tree


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
    """Write a checkpoint of the run as it stands, on all processes. Gives its folder.

    `parts` gives trees by file name, on all processes; those whose name begins with "rank-" are each process's own,
    the others are written by the main process.
    """
    final = run.output_dir / f"checkpoint-{run.step}"
    partial = run.output_dir / f".checkpoint-{run.step}.partial"
    with writing(final.name, run.output_dir, _after_a_full_disk(run)), clearing(partial, run.world.main):
        if run.world.main:
            tidy(run.output_dir)
            partial.mkdir(parents=True)
        run.world.barrier()
        run.hooks.save_model(run, policy, partial)
        for name, tree in parts().items():
            if run.world.main or name.startswith("rank-"):
                write_tree(partial / name, tree)
        run.world.barrier()
        if run.world.main:
            seal(partial, final)
            rotate(run, best_step)
        run.world.barrier()
    return final


def _after_a_full_disk(run: Run) -> str:
    whole = [path.name for _, path in numbered(run.output_dir)]
    again = f"resume_from_checkpoint: auto goes on from {whole[-1]}" if whole else "start again"
    return f"make room, or keep fewer checkpoints (save_total_limit); then {again}"


def numbered(output_dir: Path) -> list[tuple[int, Path]]:
    """Checkpoint folders by step, oldest first, whole or not."""
    found = []
    for path in output_dir.glob("checkpoint-*"):
        if match := re.fullmatch(r"checkpoint-([0-9]{1,12})", path.name):  # no copy of one, by whatever name
            found.append((int(match[1]), path))
    return sorted(found)


def rotate(run: Run, best_step: int | None) -> None:
    """Delete the oldest checkpoints beyond save_total_limit, never the best nor the newest."""
    limit = run.core.save_total_limit
    if limit is None:
        return
    kept = [(step, path) for step, path in numbered(run.output_dir) if step <= run.step]
    spare = [path for step, path in kept[:-1] if step != best_step]
    for path in spare[: max(0, len(kept) - limit)]:
        discard(path)
