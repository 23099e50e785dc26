"""What the command line costs before it does anything."""

from __future__ import annotations

import resource
import subprocess
import sys

from bench.pairs import compare


def cpu(*command: str) -> float:
    """CPU seconds of a child process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    libraries = (sys.executable, "-c", "import click, pydantic, pluggy")
    help_ = (sys.executable, "-m", "tunesmith", "--help")
    compare(
        "tunesmith --help / importing click, pydantic, pluggy", lambda: cpu(*help_), lambda: cpu(*libraries), 10, "3"
    )
    check = (sys.executable, "-m", "tunesmith", "check", "examples/quickstart.yaml")
    print(f"tunesmith check examples/quickstart.yaml: {min(cpu(*check) for _ in range(5)):.2f} s of CPU (bar 2)")
