"""Read the metric of a trial from its metrics.jsonl and run.json."""

from __future__ import annotations

import math
from pathlib import Path

from tunesmith.files.record import last_record, metrics_of


def values_of(folder: Path, metric: str) -> list[tuple[int, float]]:
    """Return (step, value) of each line with a finite value of the metric, by step; the last line of a step counts."""
    values = {
        line["step"]: float(line[metric])
        for line in metrics_of(folder)
        if isinstance(line.get(metric), int | float) and math.isfinite(line[metric])
    }
    return sorted(values.items())


def result_of(folder: Path, metric: str) -> tuple[int, float] | None:
    """Return step and value of the metric of the model that a finished run saved; None if it was not measured.

    With load_best_model_at_end, that is the best evaluation; otherwise the last one.
    """
    values = values_of(folder, metric)
    outline = last_record(folder).get("outline")
    step = outline.get("model_step") if isinstance(outline, dict) else None
    chosen = [one for one in values if one[0] == step]
    return (chosen or values[-1:] or [None])[0]


def names_in(folder: Path) -> list[str]:
    """Return the names of the numbers in metrics.jsonl."""
    names = {key for line in metrics_of(folder) for key, value in line.items() if isinstance(value, int | float)}
    return sorted(names - {"step", "epoch"})
