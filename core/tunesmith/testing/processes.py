"""Check that two processes train as one does. All runs of a session share a few launches of the processes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tunesmith.testing import losses, running
from tunesmith.testing.checks import Failure, check
from tunesmith.testing.running import Outcome
from tunesmith.testing.subject import Subject
from tunesmith.testing.worker import WEIGHTS, command

KEYS = {"micro_batch_size": 5, "gradient_accumulation_steps": 2}
"""Three micro-batches on two processes: one of them gets a dummy."""
SECONDS = 600


@check("loss", slow=True)
def two_processes_are_one(subject: Subject) -> None:
    """Check that two processes train as one does, with an uneven share of the rows."""
    launch([subject])
    change = f"{losses.COUNT}; sum over processes with run.world.sum, on every process"
    for case in losses.cases(subject):
        failed = subject.cache[case[0], "processes"]
        if isinstance(failed, str):
            raise Failure(f"{case[1]}, {case[2]} rows: two processes fail:\n{failed}", change)
        others = failed, losses.outcome(subject, case)
        promise = f"{case[1]}, {case[2]} rows: two processes train differently from one"
        running.require_close(*others, losses.initial(subject, case), promise, change)


def launch(subjects: Iterable[Subject]) -> None:
    """Train every case of some plugins on two processes, and keep the outcome, or the output of a failure.

    A failing config ends its launch; the configs after it are launched again.
    """
    waiting: dict[Path, tuple[Subject, str]] = {}
    for subject in subjects:
        for name, way, kind in losses.cases(subject):
            if (name, "processes") not in subject.cache:
                waiting[subject.write(f"{name}-processes", kind, way, **KEYS)] = subject, name
    while waiting:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        completed = subprocess.run(
            command(2, list(waiting)), capture_output=True, text=True, env=environment, check=False, timeout=SECONDS
        )
        for path, (subject, name) in list(waiting.items()):
            folder = path.with_suffix("")
            done = (folder / WEIGHTS).exists()
            output = (completed.stdout[-1000:] + completed.stderr[-3000:]).strip()
            subject.cache[name, "processes"] = _outcome(folder) if done else output
            del waiting[path]
            if not done:
                break


def _outcome(folder: Path) -> Outcome:
    from safetensors.torch import load_file

    weights: dict[str, Any] = load_file(folder / WEIGHTS)
    return Outcome(folder, running.lines(folder), weights, set(weights))
