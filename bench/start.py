"""Measure the start of the command line."""

from __future__ import annotations

import sys

from bench.child import TUNESMITH, run
from bench.pairs import compare


def main() -> None:
    libraries = (sys.executable, "-c", "import click, pydantic, pluggy")
    compare(
        "tunesmith --help / importing click, pydantic, pluggy",
        lambda: run(*TUNESMITH, "--help").seconds,
        lambda: run(*libraries).seconds,
        10,
        "3",
    )
    check = (*TUNESMITH, "check", "examples/quickstart.yaml")
    print(
        f"tunesmith check examples/quickstart.yaml: {min(run(*check).seconds for _ in range(5)):.2f} s of CPU (bar 2)"
    )
