"""Checkpoints: complete or absent, safetensors and JSON only, checked before use.

A checkpoint is written beside its name, flushed to disk, listed with sha256 in manifest.json, and renamed into place.
Everything that the next step depends on is in it, so a resumed run goes on bit for bit.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tunesmith.discovery import LoadedPlugin
from tunesmith.errors import ConfigError, ModelError, PluginError
from tunesmith.run import Run
from tunesmith.settings import FREE_ON_RESUME
from tunesmith_engine.files import complaint, discard, seal, tidy, writing
from tunesmith_engine.record import status_of

if TYPE_CHECKING:
    from tunesmith_engine.policy import Policy

# trees of JSON values and tensors


def write_tree(path: Path, tree: Any) -> None:
    """Write JSON values with tensors and arrays among them as path.json and path.safetensors."""
    tensors: dict[str, Tensor] = {}
    text = json.dumps(_strip(tree, tensors))
    path.with_suffix(".json").write_text(text, encoding="utf-8")
    save_file(tensors, path.with_suffix(".safetensors"))


def read_tree(path: Path) -> Any:
    tensors = load_file(path.with_suffix(".safetensors"))
    return _fill(json.loads(path.with_suffix(".json").read_text("utf-8")), tensors)


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
    if run.step == run.restored and complaint(final) is None:  # a resumed run that stands where it began
        return final
    partial = run.output_dir / f".checkpoint-{run.step}.partial"
    with writing(f"checkpoint-{run.step}", _after_a_full_disk(run), partial):
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
        with contextlib.suppress(ValueError):
            found.append((int(path.name.rpartition("-")[2]), path))
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


# finding and loading


def choose(run: Run) -> Path | None:
    """The checkpoint that resume_from_checkpoint names: for `auto` the newest whole one, saying what was passed over.

    Raises ConfigError if output_dir already holds a run and nothing was said about resuming.
    """
    wanted = run.core.resume_from_checkpoint
    if wanted is None:
        if numbered(run.output_dir) or status_of(run.output_dir) not in (None, "failed"):
            help = "write resume_from_checkpoint: auto to go on, or choose another output_dir"
            raise run.config.error("output_dir", f"{run.output_dir} holds a run already", help)
        return None
    if wanted != "auto":
        why = complaint(Path(wanted))
        if why:
            raise ModelError(f"checkpoint {wanted} {why}", where=run.config.document.where(("resume_from_checkpoint",)))
        return Path(wanted)
    return newest(run)


def newest(run: Run) -> Path | None:
    """The newest whole checkpoint in output_dir; says which were passed over, and why."""
    passed: list[str] = []
    found = None
    for _, path in reversed(numbered(run.output_dir)):
        why = complaint(path)
        if why is None:
            found = path
            break
        passed.append(f"{path.name} {why}")
    if passed:
        run.note("checkpoints passed over", "; ".join(passed))
    return found


def abandon(run: Run) -> None:
    """Put checkpoints that are newer than the one that was resumed from out of the way: they are of another course."""
    newer = [path for step, path in numbered(run.output_dir) if step > run.step]
    run.world.barrier()
    if newer and run.world.main:
        for path in newer:
            aside = path.with_name(f"abandoned-{path.name}")
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)
    if newer:
        run.note("checkpoints put aside", ", ".join(path.name for path in newer))


def keys_of(plugin: LoadedPlugin) -> set[str]:
    """The top-level keys that a plugin owns."""
    return set(plugin.declaration.settings.model_fields) if plugin.declaration.settings else set()


def check_same(run: Run, saved: dict[str, Any]) -> None:
    """Refuse to go on with what would make another run of it; note other versions of plugins."""
    now = json.loads(json.dumps(run.config.resolved(), default=str))
    before = saved["config"]
    free = FREE_ON_RESUME | {k for p in run.hooks.plugins if p.declaration.best_effort for k in keys_of(p)}
    both = sorted(now.keys() & before.keys())  # a key of one side alone came or went with a plugin or its release
    changed = [key for key in both if now[key] != before[key] and key not in free]
    if changed:
        shown = ", ".join(f"{key} ({before.get(key)!r} -> {now.get(key)!r})" for key in changed[:5])
        help = "change it back, or start in another output_dir"
        raise ConfigError(
            f"can't resume: {shown}", where=run.config.document.where((changed[0],)), code="resume", help=help
        )
    if saved["world"] != run.world.size:
        raise ConfigError(f"can't resume on {run.world.size} processes what {saved['world']} began", code="resume")
    if run.data and saved["data"] != run.data.fingerprint:
        raise ConfigError(
            "can't resume: the data, tokenizer or strategy changed", code="resume", help="start in another output_dir"
        )
    versions = {p.name: p.version for p in run.hooks.plugins}
    if saved["plugins"] != versions:
        run.note("plugins changed since the checkpoint", f"{saved['plugins']} -> {versions}")
