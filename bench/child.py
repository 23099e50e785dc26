"""Run commands as child processes, and measure their CPU time."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
MARK = "BENCH "
TUNESMITH = (sys.executable, "-m", "tunesmith")


@dataclass(frozen=True)
class Result:
    """The CPU seconds (user and system) of a child and its children, and the numbers that it passed to `report`."""

    seconds: float
    numbers: dict[str, Any]


def run(*command: str, **environment: str) -> Result:
    """Run a command in the root of the repository. Raises RuntimeError with the end of its output if it fails."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=7200
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    numbers: dict[str, Any] = {}
    for line in done.stdout.splitlines():
        if line.startswith(MARK):
            numbers |= json.loads(line.removeprefix(MARK))
    return Result(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, numbers)


def module(name: str, *arguments: str, **environment: str) -> Result:
    """Run a module of bench/ as a child process."""
    return run(sys.executable, "-m", f"bench.{name}", *arguments, **environment)


def report(**numbers: Any) -> None:
    """Pass numbers from a child process to its parent."""
    print(MARK + json.dumps(numbers), flush=True)


def seconds() -> float:
    """Return the CPU seconds of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
