"""Choose the checkpoint that a run resumes from, and check that this run may."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tunesmith.errors import ConfigError, EnvironmentProblem, ModelError
from tunesmith.folders import check_new
from tunesmith.plugins.plugin import OnResume
from tunesmith.resume_rules import IF_ROWS_STAY, LAYOUT, rules
from tunesmith.run import Run
from tunesmith_engine.checkpoint.save import has_optimizer, numbered
from tunesmith_engine.runtime.atomic import MANIFEST, why_invalid

NOTED = ("processes", *LAYOUT, *IF_ROWS_STAY)
"""Differences that change no result except for rounding, and are noted nevertheless."""


def choose(run: Run) -> Path | None:
    """Return the checkpoint that resume_from_checkpoint names, or for `auto` the newest valid one; None to start anew.

    Raises ConfigError if output_dir already contains a run and resume_from_checkpoint is not set, and ModelError if the
    named checkpoint is invalid.
    """
    choice = run.core.resume_from_checkpoint
    check_new(run)
    if choice is None:
        return None
    if choice == "auto":
        return newest(run)
    if why := why_invalid(Path(choice)):
        inside = numbered(Path(choice))
        hint = f"name a checkpoint in this folder, such as {inside[-1][1]}" if inside else None
        where = run.config.document.where(("resume_from_checkpoint",))
        raise ModelError(f"checkpoint {choice} {why}", where=where, help=hint)
    return Path(choice)


def check_resumable(run: Run, folder: Path | None) -> None:
    """Raise ConfigError for a checkpoint without the optimizer's state."""
    if folder is not None and not has_optimizer(folder):
        message = f"can't resume: {folder} has no optimizer state, because it was saved with save_only_model"
        help = "resume from another checkpoint, or start in another output_dir, with these weights as base_model or"
        help += " lora_model_dir"
        raise ConfigError(message, where=run.config.place("resume_from_checkpoint"), code="resume", help=help)


def newest(run: Run) -> Path | None:
    """Return the newest valid checkpoint in output_dir, and note which newer ones were passed over, and why.

    The main process chooses, so that all resume from the same one. Raises EnvironmentProblem if another process does
    not see it.
    """
    folder = run.world.gather(_newest(run) if run.world.main else None)[0]
    visible = run.world.gather(folder is None or (folder / MANIFEST).is_file())
    if not all(visible):
        message = f"process {visible.index(False)} does not see {folder}"
        help = "choose an output_dir on a file system that all processes share"
        raise EnvironmentProblem(message, code="disk", help=help)
    return folder


def _newest(run: Run) -> Path | None:
    invalid: list[str] = []
    valid = None
    for _, path in reversed(numbered(run.output_dir)):
        why = why_invalid(path)
        if why is None:
            valid = path
            break
        invalid.append(f"{path.name} {why}")
    if invalid:
        run.note("checkpoints passed over", "; ".join(invalid))
    return valid


def abandon(run: Run) -> None:
    """Rename checkpoints of later steps than the resumed one to abandoned-checkpoint-N.

    They belong to another course of the run. Under their names, `auto` would resume from them next time.
    """
    later = [path for step, path in numbered(run.output_dir) if step > run.step]
    run.world.barrier()  # every process has listed the folder before the main one renames
    if later and run.world.main:
        for path in later:
            aside = path.with_name(f"abandoned-{path.name}")
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)
    if later:
        run.note("checkpoints set aside", ", ".join(path.name for path in later))


@dataclass(frozen=True)
class Difference:
    """A difference between this run and a checkpoint: in a key, or in `data`, `plugins` or `processes`."""

    name: str
    description: str
    rule: OnResume | Literal["never"]


def differences(run: Run, saved: dict[str, Any]) -> Iterator[Difference]:
    """Yield the differences between this run and the one of a checkpoint. `saved` is its shared state."""
    config, saved_config = run.config.resolved(), saved["config"]
    digests, saved_digests = run.config.digests(), saved["digests"]
    rule: dict[str, Any] = rules(plugin.declaration for plugin in run.hooks.plugins)
    # Other numbers of processes and micro-batches compute the same step as long as it has as many packs.
    packs, saved_packs = (
        packs_per_step(config, run.world.data.size),
        packs_per_step(saved_config, saved["data_processes"]),
    )
    if packs != saved_packs:
        rule |= dict.fromkeys(IF_ROWS_STAY, "never")
    for key in sorted(config.keys() & saved_config.keys()):  # keys of one side only came or went with a plugin
        if digests[key] != saved_digests[key]:
            description = f"{key} ({saved_config[key]!r} -> {config[key]!r})"
            yield Difference(key, description, rule.get(key, "never"))
    groups, saved_groups = run.world.data.size, saved["data_processes"]
    if saved["world"] != run.world.size or saved_groups != groups:
        description = f"processes ({saved['world']} -> {run.world.size})"
        if saved["world"] == run.world.size:
            description = f"processes with packs of their own ({saved_groups} -> {groups})"
        if packs != saved_packs:
            description = f"{description[:-1]}, which changes the packs of a step: {saved_packs} -> {packs})"
        yield Difference("processes", description, "free" if packs == saved_packs else "never")
    # The fingerprint changes with a moved file or another version of a plugin. If the examples are the same, so is the
    # data.
    if run.data and saved["data"] != run.data.fingerprint and (saved["content"] or 0) != run.data.content:
        yield Difference("data", "data (other rows, tokenizer, template or strategy)", "accept")
    if saved["weights"] != weights(run):
        yield Difference("data", f"data (weight of entries {saved['weights']} -> {weights(run)})", "accept")
    plugins, more_than_patch = changed_plugins(run, saved["plugins"])
    if plugins:
        yield Difference("plugins", f"plugins ({'; '.join(plugins)})", "accept" if more_than_patch else "free")


def weights(run: Run) -> list[float]:
    """Return the weight of each dataset entry: how often its rows are used in an epoch."""
    return [spec.settings.weight for spec in run.config.datasets]


def packs_per_step(config: dict[str, Any], processes: int) -> int:
    packs: int = config["micro_batch_size"] * config["gradient_accumulation_steps"] * processes
    return packs


def changed_plugins(run: Run, saved: dict[str, str]) -> tuple[list[str], bool]:
    """Return descriptions of changed plugins, and True if a change is more than a patch release (0.1.2 for 0.1.1)."""
    current = versions(run)
    descriptions, more_than_patch = [], False
    for name in sorted(current.keys() | saved.keys()):
        before, now = saved.get(name), current.get(name)
        if before != now:
            descriptions.append(f"{name} {before or 'absent'} -> {now or 'absent'}")
            more_than_patch |= before is None or now is None or release(before) != release(now)
    return descriptions, more_than_patch


def versions(run: Run) -> dict[str, str]:
    """Return the version, or the hash of a local file, of each plugin that acts on steps, or whose offers the run uses.

    Loggers are left out, since they change no step. Files with functions that the run calls have their hash too.
    """
    plugins = [plugin for plugin in run.hooks.plugins if not plugin.declaration.best_effort]
    plugins += [offer.plugin.load() for offer in run.used_offers.values()]
    files = {path: f"sha256:{digest[:16]}" for path, digest in run.used_files.items()}
    return files | {plugin.name: plugin.content or plugin.version for plugin in plugins}


def release(version: str) -> str:
    """Return the part of a version whose change may change results: 0.1 of 0.1.2."""
    match = re.match(r"\d+\.\d+(?=\.\d+$)", version)
    return match[0] if match else version


def check_same(run: Run, saved: dict[str, Any]) -> list[str]:
    """Return the names of accepted changes since a checkpoint. Raises ConfigError if others were made."""
    changes = list(differences(run, saved))
    accepted = set(run.core.accept_changes)
    refused = [d for d in changes if d.rule == "never" or (d.rule == "accept" and d.name not in accepted)]
    if refused:
        keys = run.config.document.keys
        where = next((run.config.document.where((d.name,)) for d in refused if (d.name,) in keys), None)
        message = f"can't resume: {', '.join(d.description for d in refused[:5])}"
        help = "change it back, or start in another output_dir"
        if all(d.rule == "accept" for d in refused):
            names = sorted(accepted | {d.name for d in refused})
            help = f"change it back, or write accept_changes: [{', '.join(names)}] to resume with the change"
        raise ConfigError(message, where=where, code="resume", help=help)
    applied = [d for d in changes if d.rule == "accept" or d.name == "plugins"]
    if noted := [d for d in changes if d in applied or d.name in NOTED]:
        run.note("changed since the checkpoint", ", ".join(d.description for d in noted))
    return [d.name for d in applied]
