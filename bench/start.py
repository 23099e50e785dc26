"""Measure the start of the command line: how long each command takes, and which packages it imports."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from bench.child import ROOT, TUNESMITH, run
from bench.pairs import compare

RUN = "examples/quickstart.yaml"
TOKENIZER = "from transformers import AutoTokenizer; AutoTokenizer.from_pretrained('examples/tiny')"
SHOWN = 0.02
"""Packages are named from this many seconds of import on, which is their own modules' time without nested imports."""


def main() -> None:
    libraries = (sys.executable, "-c", "import click, pydantic, pluggy")
    compare(
        "tunesmith --help / importing click, pydantic, pluggy",
        lambda: run(*TUNESMITH, "--help").seconds,
        lambda: run(*libraries).seconds,
        10,
        "3",
    )
    check = (*TUNESMITH, "check", RUN)
    print(f"tunesmith check {RUN}: {min(run(*check).seconds for _ in range(5)):.2f} s of CPU (bar 2)")
    with tempfile.TemporaryDirectory(prefix="tunesmith-start-") as name:
        folder = Path(name)
        prepared = f"dataset_prepared_path={folder / 'prepared'}"
        preprocess = (*TUNESMITH, "preprocess", RUN, prepared)
        run(*preprocess)
        compare(
            "tunesmith preprocess with cached data / importing torch and loading the tokenizer",
            lambda: run(*preprocess).seconds,
            lambda: run(sys.executable, "-c", f"import torch; {TOKENIZER}").seconds,
            5,
            "1.3",
        )
        commands = {
            "--help": ("--help",),
            "check": ("check", RUN),
            "preprocess, cached": ("preprocess", RUN, prepared),
            "plan": ("plan", RUN, prepared),
            "train, one step": ("train", RUN, prepared, f"output_dir={folder / 'out'}", "max_steps=1"),
        }
        for what, arguments in commands.items():
            print(f"imports of {what}: {imports(*arguments)}", flush=True)


def imports(*arguments: str) -> str:
    """Return the packages that a command imports, with the seconds that their own modules take."""
    command = (sys.executable, "-X", "importtime", "-m", "tunesmith", *arguments)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    seconds: Counter[str] = Counter()
    for line in done.stderr.splitlines():
        own, _, rest = line.removeprefix("import time:").partition("|")
        if line.startswith("import time:") and own.strip().isdecimal():
            seconds[rest.partition("|")[2].strip().partition(".")[0]] += int(own) / 1e6
    total = sum(seconds.values())
    named = [f"{name} {value:.2f}" for name, value in seconds.most_common() if value >= SHOWN]
    return f"{total:.2f} s; {', '.join(named[:12])}"


if __name__ == "__main__":
    main()
