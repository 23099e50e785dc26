"""Describe what a run trained and what to type next, as far as its folder tells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tunesmith import outline
from tunesmith.finding import size
from tunesmith.next_command import load_command, plugin_commands
from tunesmith_report.curves import LOSS, Metric
from tunesmith_report.folder import Folder
from tunesmith_report.formatting import finite


@dataclass(frozen=True)
class Best:
    """The best evaluation: the metric that evaluations are compared by, without eval_, with its step and value."""

    metric: str
    step: int
    value: float


def best_of(folder: Folder, metrics: Mapping[str, Metric]) -> Best | None:
    """Return the best evaluation by metric_for_best_model, or None if it was not measured."""
    key = folder.config.get("metric_for_best_model")
    name = key.removeprefix("eval_") if isinstance(key, str) else LOSS
    if name not in metrics or not metrics[name].held.values:
        return None
    held = metrics[name].held
    value = (max if folder.config.get("greater_is_better") is True else min)(held.values)
    return Best(name, held.steps[held.values.index(value)], value)


def trained(folder: Folder) -> list[tuple[str, str]]:
    """Return (name, text) of model, method, data, steps, packing and memory, as the console printed them."""
    facts = folder.mapping("outline")
    try:
        rows = outline.lines(facts)
    except (KeyError, TypeError, ValueError):  # of an older version, or damaged
        rows = []
    length = facts.get("sequence_len")
    if rows and facts.get("packed") is not None:
        packing = f"packs of up to {length} tokens" if facts["packed"] else f"none; up to {length} tokens each"
        rows.append(("packing", packing))
    if peak := finite(folder.record.get("peak_memory")):
        rows.append(("memory", f"{size(peak)} at the peak"))
    return [(name, str(text)) for name, text in rows]


def commands(folder: Folder, path: Path) -> list[tuple[str, str]]:
    """Return (purpose, command) for what can be typed next: run or merge a finished model, or resume another run."""
    status, resume = folder.record.get("status"), folder.record.get("resume_command")
    if status == "done":
        run = load_command(path)
        return [*([("Run the model", run)] if run else []), *plugin_commands(path).items()]
    if status in ("interrupted", "failed") and isinstance(resume, str) and any(path.glob("checkpoint-*")):
        return [("Continue from the last checkpoint", resume)]
    return []
