"""Going on from a checkpoint: which one, and whether this run may."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tunesmith.errors import ConfigError, EnvironmentProblem, ModelError
from tunesmith.plugins.plugin import OnResume
from tunesmith.resume_rules import IF_ROWS_STAY, rules
from tunesmith.run import Run
from tunesmith_engine.checkpoint.save import numbered
from tunesmith_engine.runtime.atomic import MANIFEST, complaint
from tunesmith_engine.runtime.record import status_of


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
    """The newest whole checkpoint in output_dir; says which were passed over, and why.

    The main process looks, and the others have to find the same. Raises EnvironmentProblem where they do not.
    """
    found = run.world.gather(_newest(run) if run.world.main else None)[0]
    seen = run.world.gather(found is None or (found / MANIFEST).is_file())
    if not all(seen):
        message = f"{found} is not seen by process {seen.index(False)}"
        raise EnvironmentProblem(
            message, code="disk", help="output_dir has to be on a file system that all processes share"
        )
    return found


def _newest(run: Run) -> Path | None:
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


@dataclass(frozen=True)
class Difference:
    """What is not as it was when a checkpoint was written: a key, or `data`, `plugins`, `processes`."""

    name: str
    told: str
    rule: OnResume | Literal["never"]


def differences(run: Run, saved: dict[str, Any]) -> Iterator[Difference]:
    """How this run differs from the one of a checkpoint, whose shared state `saved` is."""
    now, before = run.config.resolved(), saved["config"]
    one, other = run.config.digests(), saved["digests"]
    rule: dict[str, Any] = rules(plugin.declaration for plugin in run.hooks.plugins)
    rows = [rows_of_a_step(before, saved["world"]), rows_of_a_step(now, run.world.size)]
    if rows[0] != rows[1]:
        rule |= dict.fromkeys(IF_ROWS_STAY, "never")
    for key in sorted(now.keys() & before.keys()):  # a key of one side alone came or went with a plugin
        if one[key] != other[key]:
            yield Difference(key, f"{key} ({before[key]!r} -> {now[key]!r})", rule.get(key, "never"))
    if saved["world"] != run.world.size:
        told = f"processes ({saved['world']} -> {run.world.size}"
        told += ")" if rows[0] == rows[1] else f", and with them the rows of a step: {rows[0]} -> {rows[1]})"
        yield Difference("processes", told, "accept" if rows[0] == rows[1] else "never")
    if run.data and saved["data"] != run.data.fingerprint and (saved["content"] or 0) != run.data.content:
        yield Difference("data", "data (other rows, tokenizer, template or strategy)", "accept")
    if saved["weights"] != weights(run):
        yield Difference("data", f"data (weight of entries {saved['weights']} -> {weights(run)})", "accept")
    others, grave = other_plugins(run, saved["plugins"])
    if others:
        yield Difference("plugins", f"plugins ({'; '.join(others)})", "accept" if grave else "free")


def weights(run: Run) -> list[float]:
    """How often each entry is seen in an epoch."""
    return [spec.settings.weight for spec in run.config.datasets]


def rows_of_a_step(config: dict[str, Any], processes: int) -> int:
    rows: int = config["micro_batch_size"] * config["gradient_accumulation_steps"] * processes
    return rows


def other_plugins(run: Run, before: dict[str, str]) -> tuple[list[str], bool]:
    """Plugins that came, went or have another version; and whether it is more than a new patch
    release (0.1.2 for 0.1.1) of some."""
    now = versions(run)
    told, grave = [], False
    for name in sorted(now.keys() | before.keys()):
        one, other = before.get(name), now.get(name)
        if one != other:
            told.append(f"{name} {one or 'absent'} -> {other or 'absent'}")
            grave = grave or one is None or other is None or release(one) != release(other)
    return told, grave


def versions(run: Run) -> dict[str, str]:
    """The version of each active plugin but loggers; of a local file, the hash of what was loaded."""
    plugins = [plugin for plugin in run.hooks.plugins if not plugin.declaration.best_effort]
    return {plugin.name: plugin.content or plugin.version for plugin in plugins}


def release(version: str) -> str:
    """The part of a version whose change may change results: 0.1 of 0.1.2."""
    found = re.match(r"\d+\.\d+(?=\.\d+$)", version)
    return found[0] if found else version


def check_same(run: Run, saved: dict[str, Any]) -> list[str]:
    """Names of what changed since a checkpoint, all of it accepted. Raises ConfigError for what is not."""
    found = list(differences(run, saved))
    accepted = set(run.core.accept_changes)
    refused = [d for d in found if d.rule == "never" or (d.rule == "accept" and d.name not in accepted)]
    if refused:
        said = run.config.document.keys
        where = next((run.config.document.where((d.name,)) for d in refused if (d.name,) in said), None)
        message = f"can't resume: {', '.join(d.told for d in refused[:5])}"
        help = "change it back, or start in another output_dir"
        if all(d.rule == "accept" for d in refused):
            words = sorted(accepted | {d.name for d in refused})
            help = f"change it back, or write accept_changes: [{', '.join(words)}] to go on with what is new"
        raise ConfigError(message, where=where, code="resume", help=help)
    changed = [d for d in found if d.rule == "accept" or d.name == "plugins"]
    if changed:
        run.note("changed since the checkpoint", ", ".join(d.told for d in changed))
    return [d.name for d in changed]
