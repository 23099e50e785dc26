"""Compare start, launch and step with those of a base commit, in turn, on this machine.

    python bench/base.py COMMIT [ROUNDS]

The base is cloned and set up in a temporary folder with a virtual environment of its own. In each round, both trees run
the same commands on the same files, in alternating order. All figures are CPU seconds (user and system) of the child.
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.child import run  # noqa: E402
from bench.pairs import ratio  # noqa: E402
from bench.sft_work import Work, make  # noqa: E402
from tests.records.compare import clone  # noqa: E402

WORK = Work(hidden=256, layers=4, vocabulary=4096, rows=600, sequence_len=1024)
STEPS = 8
WATCH = '''"""Print the CPU seconds up to the first step, and those of each step after it."""

import json
import resource

from tunesmith import Plugin, hookimpl

plugin = Plugin()
times = []


@hookimpl
def on_step():
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    times.append(sum(used.ru_utime + used.ru_stime for used in usages))
    if len(times) == STEPS:
        figures = {"first": times[0], "step": (times[-1] - times[0]) / (STEPS - 1)}
        print("\\nBENCH", json.dumps(figures), flush=True)
'''.replace("STEPS", str(STEPS))


def measure(python: Path, folder: Path, side: str) -> dict[str, float]:
    """Return the CPU seconds of one tree by name: help, check, launch to first step, one step."""
    os.environ["PYTHONPATH"] = ""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # a new environment would never get compiled modules
    command = (str(python), "-P", "-m", "tunesmith")
    overrides = (f"output_dir={folder / side}", f"max_steps={STEPS}", f"plugins=[{folder / 'watch.py'}]")
    trained = run(*command, "train", str(folder / "run.yaml"), *overrides, "resume_from_checkpoint=null")
    figures = {
        "tunesmith --help": run(*command, "--help").seconds,
        "tunesmith check": run(*command, "check", str(folder / "run.yaml")).seconds,
        "launch to first step": trained.numbers["first"],
        "one step": trained.numbers["step"],
    }
    for path in sorted((folder / side).rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    return figures


def main(commit: str, rounds: int = 7) -> None:
    with tempfile.TemporaryDirectory(prefix="tunesmith-base-") as name:
        python, full = clone(commit, Path(name) / "base")
        trees = {"now": Path(sys.executable), "base": python}
        folder = Path(name) / "work"
        folder.mkdir()
        make(folder, WORK)
        (folder / "watch.py").write_text(WATCH, encoding="utf-8")
        figures: dict[str, dict[str, list[float]]] = {side: {} for side in trees}
        for number in range(rounds + 1):  # the first round warms the caches and is not counted
            for side in sorted(trees, reverse=bool(number % 2)):
                for what, seconds in measure(trees[side], folder, side).items():
                    if number:
                        figures[side].setdefault(what, []).append(seconds)
    libraries = ", ".join(f"{library} {metadata.version(library)}" for library in ("torch", "transformers"))
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}, {libraries}")
    print(f"now / {full[:7]}, {rounds} rounds in turn, CPU seconds: median ratio (lowest to highest)")
    for what, now in figures["now"].items():
        middle, low, high = ratio(now, figures["base"][what])
        print(f"{what}: {middle:.3f} ({low:.3f} to {high:.3f}); now {sorted(now)[len(now) // 2]:.3f} s")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:3]))
