"""A command as a child process: the CPU seconds that it took, and the numbers that it told."""

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
class Done:
    """CPU seconds (user and system) of a child and its own children, and what it told with `tell`."""

    seconds: float
    told: dict[str, Any]


def run(*command: str, **environment: str) -> Done:
    """Run a command in the repository's root to its end. Raises RuntimeError with its last lines if it fails."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=1800
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    told: dict[str, Any] = {}
    for line in done.stdout.splitlines():
        if line.startswith(MARK):
            told |= json.loads(line.removeprefix(MARK))
    return Done(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, told)


def module(name: str, *arguments: str, **environment: str) -> Done:
    """Run a module of bench/ as a child."""
    return run(sys.executable, "-m", f"bench.{name}", *arguments, **environment)


def tell(**numbers: Any) -> None:
    """Called in a child: hand numbers to the parent."""
    print(MARK + json.dumps(numbers), flush=True)


def seconds() -> float:
    """CPU seconds of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
