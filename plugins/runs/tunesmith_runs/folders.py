"""Read the folders of runs without torch: state, steps, results, cost. Damaged files never raise an error."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunesmith.engine import engine
from tunesmith.files.record import last_record, metrics_of

STATES = {"done": "finished", "failed": "failed", "interrupted": "interrupted"}
DEEPEST = 6
"""Most folders between the one that is listed and a run."""


@dataclass
class Run:
    """A run in a folder. `state` is running, finished, interrupted or failed."""

    folder: Path
    record: dict[str, Any]
    state: str
    last: dict[str, float] = field(default_factory=dict)
    """The last value of each metric."""
    best: tuple[str, int, float] | None = None
    """(metric, step, value) of the best evaluation."""

    @property
    def config(self) -> dict[str, Any]:
        config = self.record.get("config")
        return config if isinstance(config, dict) else {}

    @property
    def outline(self) -> dict[str, Any]:
        outline = self.record.get("outline")
        return outline if isinstance(outline, dict) else {}

    @property
    def step(self) -> int:
        """The last step: of metrics.jsonl while the run is in progress, since run.json is written at its ends."""
        recorded = self.record.get("step")
        live = int(self.last.get("step", 0)) if self.state in ("running", "interrupted") else 0
        return max(live, recorded if isinstance(recorded, int) else 0)

    @property
    def seconds(self) -> float | None:
        """The duration of the last start."""
        started, seconds = (_number(self.record.get(key)) for key in ("started", "seconds"))
        return time.time() - started if self.state == "running" and started else seconds

    def facts(self) -> dict[str, Any]:
        """Return what the table and --json show."""
        return {
            "run": str(self.folder),
            "state": self.state,
            "step": self.step,
            "total_steps": self.record.get("total_steps"),
            "method": self.outline.get("method") or self.config.get("rl") or "",
            "model": self.outline.get("model") or self.config.get("base_model") or "",
            "loss": self.last.get("loss"),
            "best_metric": self.best[0] if self.best else None,
            "best": self.best[2] if self.best else None,
            "best_step": self.best[1] if self.best else None,
            "last": self.last,
            "seconds": self.seconds,
            "tokens": self.last.get("tokens"),
            "disk": disk(self.folder),
            "started": self.record.get("started"),
            "stopped": self.record.get("stopped"),
        }


def read_run(folder: Path) -> Run:
    """Return the run in a folder, with its state and its metrics."""
    record = last_record(folder)
    state = STATES.get(str(record.get("status")), "running")
    if state == "running" and engine("runtime.lock").holder(folder) is None:
        state = "interrupted"  # it was killed: no process has the folder
    run = Run(folder, record, state)
    metric, greater = str(run.config.get("metric_for_best_model")), bool(run.config.get("greater_is_better"))
    for line in metrics_of(folder):
        for key, value in line.items():
            if (number := _number(value)) is not None:
                run.last[key] = number
        value = _number(line.get(metric))
        if value is not None and (run.best is None or (value > run.best[2] if greater else value < run.best[2])):
            run.best = (metric, int(line["step"]), value)
    return run


def run_folders(top: Path) -> Iterator[Path]:
    """Yield the folders with a run.json at or below a folder, sorted. Checkpoints and hidden folders are skipped."""
    for path, folders, files in os.walk(top):
        here = Path(path)
        depth = len(here.relative_to(top).parts)
        folders[:] = sorted(n for n in folders if not n.startswith((".", "checkpoint-")) and depth < DEEPEST)
        if "run.json" in files:
            yield here


def disk(folder: Path) -> int:
    """Return the bytes of all files in a folder."""
    total = 0
    for path, _, files in os.walk(folder):
        for name in files:
            try:
                total += (Path(path) / name).lstat().st_size
            except OSError:  # deleted meanwhile
                continue
    return total


def _number(value: Any) -> float | None:
    usable = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return value if usable else None
