"""Describe what a run trains, in six lines, and what may be a mistake."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith.finding import size
from tunesmith.outline import lines

if TYPE_CHECKING:
    from tunesmith import Run


def opening(run: Run) -> list[tuple[str, str]]:
    """Return (name, text) of each line: model, method, data, steps, memory, output."""
    report = run.outline.get("report")
    output = f"{run.output_dir}{f', {report}' if report else ''}"
    return [*lines(run.outline), ("memory", _memory(run.outline["memory"])), ("output", output)]


def _memory(memory: dict[str, int]) -> str:
    if "measured" in memory:
        return f"{size(memory['measured'])} at the peak of the last run of this config"
    parts = [name for name in ("weights", "gradients", "optimizer") if name in memory]
    known = f"{', '.join(parts[:-1])} and {parts[-1]}"
    return f"{size(sum(memory[name] for name in parts))} for {known}, activations not counted"


def notes(run: Run) -> list[str]:
    """Return the notes so far: what `check` warns of, dropped rows, fallbacks."""
    return [f"note: {name}: {value}" for name, value in run.notes.items()]
