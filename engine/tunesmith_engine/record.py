"""run.json: what a run is and what became of it, for people and for the next command."""

from __future__ import annotations

import json
import os
import platform
import time
from dataclasses import asdict
from importlib import metadata
from typing import Any

from tunesmith.discovery import core_version
from tunesmith.run import Run


class RunRecord:
    """Writes run.json in the run's folder, whole or not at all."""

    def __init__(self, run: Run):
        self.run = run
        self.started = time.time()

    def write(self, status: str) -> None:
        """Write the record with a status: running, interrupted or done."""
        run = self.run
        if not run.world.main:
            return
        data = run.data
        content: dict[str, Any] = {
            "status": status,
            "step": run.step,
            "total_steps": run.total_steps,
            "stopped": run.stopped,
            "started": self.started,
            "seconds": round(time.time() - self.started, 3),
            "config": run.config.resolved(),
            "config_fingerprint": run.config.fingerprint,
            "data_fingerprint": data.fingerprint if data else None,
            "data": {name: asdict(counts) for name, counts in data.counts.items()} if data else {},
            "plugins": [
                {"name": p.name, "distribution": p.distribution, "version": p.version} for p in run.hooks.plugins
            ],
            "patches": [{"target": p.target, "owner": p.owner, "applied": p.applied} for p in run.patches.entries],
            "processes": run.world.layout,
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
        path = run.output_dir / "run.json"
        partial = path.with_name(".run.json.partial")
        partial.write_text(json.dumps(content, indent=1, default=str), encoding="utf-8")
        os.replace(partial, path)
