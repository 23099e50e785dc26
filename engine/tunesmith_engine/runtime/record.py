"""run.json: what a run is and what became of it, for people and for the next command."""

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

from tunesmith.errors import EnvironmentProblem
from tunesmith.plugins.discovery import core_version
from tunesmith.redact import clean, redact
from tunesmith.run import Run
from tunesmith_engine.runtime.atomic import write_text, writing
from tunesmith_engine.runtime.memory_used import Watch


def last_record(folder: Path) -> dict[str, Any]:
    """A folder's run.json; empty where there is no run."""
    try:
        found = json.loads((folder / "run.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def status_of(folder: Path) -> str | None:
    """The status in a folder's run.json; None where there is no run."""
    return last_record(folder).get("status")


class RunRecord:
    """Writes run.json in the run's folder, whole or not at all."""

    def __init__(self, run: Run):
        self.run = run
        self.started = time.time()
        self.memory: Watch | None = None
        self.begun = False

    def crashed(self) -> None:
        """Keep the traceback of the error that ends the run, in crash.txt of the process that met it."""
        name = "crash.txt" if self.run.world.main else f"crash-{self.run.world.rank}.txt"
        with contextlib.suppress(OSError, EnvironmentProblem):  # the disk may be what failed: the error matters more
            (self.run.output_dir / name).write_text(redact(traceback.format_exc()), encoding="utf-8")
            if self.begun:  # before that, run.json may be of the run that this one was refused to go on with
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
            "peak_memory": self.memory.peak if self.memory else None,
            "config": run.config.resolved(),
            "config_fingerprint": run.config.fingerprint,
            "data_fingerprint": data.fingerprint if data else None,
            "data": {name: asdict(counts) for name, counts in data.counts.items()} if data else {},
            "plugins": [
                {"name": p.name, "distribution": p.distribution, "version": p.version} for p in run.hooks.plugins
            ],
            "patches": [{"target": p.target, "owner": p.owner, "applied": p.applied} for p in run.patches.entries],
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
        with writing("run.json", run.output_dir, "make room in output_dir, and write permission"):
            write_text(run.output_dir / "run.json", json.dumps(clean(content), indent=1))
