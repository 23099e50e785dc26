"""Write run.json, the record of a run: its config, status, data, versions and notes."""

from __future__ import annotations

import contextlib
import json
import platform
import time
import traceback
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from tunesmith.errors import EnvironmentProblem, TunesmithError
from tunesmith.files.record import last_record
from tunesmith.plugins.discovery import core_version
from tunesmith.redact import clean, redact
from tunesmith.run import Run
from tunesmith_engine.runtime.atomic import write_text, writing
from tunesmith_engine.runtime.lock import locked
from tunesmith_engine.runtime.memory_used import Watch

EVALUATIONS = "evaluations"
"""The key of evaluations of the saved model, during and after training. A run that resumes keeps them."""


def add_evaluation(folder: Path, evaluation: dict[str, Any]) -> None:
    """Append an evaluation to the record of a finished run, which is replaced at once.

    Raises EnvironmentProblem while a run has the folder, because that run will write its record again.
    """
    with locked(folder), writing("run.json", folder, "make room, and check its permissions"):
        record = last_record(folder)
        record[EVALUATIONS] = [*evaluations_in(record), clean(evaluation)]
        write_text(folder / "run.json", json.dumps(record, indent=1))


def evaluations_in(record: dict[str, Any]) -> list[Any]:
    """Return the evaluations in a record."""
    evaluations = record.get(EVALUATIONS)
    return evaluations if isinstance(evaluations, list) else []


class RunRecord:
    """A writer of run.json, which replaces the file at once."""

    def __init__(self, run: Run):
        self.run = run
        self.started = time.time()
        self.memory: Watch | None = None
        self.begun = False
        resumed = run.core.resume_from_checkpoint is not None
        self.earlier = evaluations_in(last_record(run.output_dir)) if resumed else []

    def crashed(self) -> None:
        """Write the traceback of the error that ends the run to crash.txt, or crash-RANK.txt of another process."""
        name = "crash.txt" if self.run.world.main else f"crash-{self.run.world.rank}.txt"
        with contextlib.suppress(OSError, EnvironmentProblem):  # the disk may be what failed; report the first error
            (self.run.output_dir / name).write_text(redact(traceback.format_exc()), encoding="utf-8")
            if self.begun:  # before that, run.json may belong to a run that this one was not allowed to resume
                self.write("failed")

    def lost(self, error: TunesmithError) -> None:
        """Write the error by which another process ends this one at once, on a thread of its own."""
        if self.run.world.main:
            (self.run.output_dir / "crash.txt").write_text(redact(f"{error}\n"), encoding="utf-8")
            if self.begun:
                self.write("failed")

    def write(self, status: str) -> None:
        """Write the record with a status: running, interrupted, failed or done."""
        run = self.run
        if not run.world.main:
            return
        self.begun = True
        data = run.data
        content: dict[str, Any] = {
            "status": status,
            "step": run.step,
            "total_steps": run.total_steps,
            "stopped": run.stopped,
            "started": self.started,
            "seconds": round(time.time() - self.started, 3),
            "outline": run.outline,
            "peak_memory": self.memory.peak if self.memory else None,
            "config": run.config.resolved(),
            "config_fingerprint": run.config.fingerprint,
            "data_fingerprint": data.fingerprint if data else None,
            "data": {name: asdict(counts) for name, counts in data.counts.items()} if data else {},
            "plugins": [
                {"name": p.name, "distribution": p.distribution, "version": p.version} for p in run.hooks.plugins
            ],
            "offers": [
                {
                    "kind": o.kind,
                    "name": o.name,
                    "plugin": o.plugin.name,
                    "distribution": o.plugin.distribution,
                    "version": o.plugin.version,
                }
                for o in run.used_offers.values()
            ],
            "called_files": run.used_files,
            "patches": run.patches.table(),
            "processes": run.world.describe(),
            "versions": {
                "tunesmith-core": core_version(),
                "python": platform.python_version(),
                "torch": metadata.version("torch"),
            },
            "notes": run.notes,
            "muted": run.hooks.muted,
            "hook_seconds": {f"{p}.{h}": round(s, 6) for (p, h), s in sorted(run.hooks.seconds.items())},
            "hook_calls": {f"{p}.{h}": n for (p, h), n in sorted(run.hooks.counts.items())},
        }
        if evaluations := [*self.earlier, *run.evaluations]:
            content[EVALUATIONS] = evaluations
        with writing("run.json", run.output_dir, "make room in output_dir, and check its permissions"):
            write_text(run.output_dir / "run.json", json.dumps(clean(content), indent=1))
