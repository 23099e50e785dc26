"""Compare the reference runs of the current tree with those of a base commit, bit for bit, on this machine.

    python tests/records/compare.py --base COMMIT            run both trees and compare
    python tests/records/compare.py --base COMMIT --write    run the base alone and write records.json

The base is cloned into a temporary folder with a virtual environment of its own (`make setup`). Both trees read the
same models, rows and YAML files, which the current checkout writes. The current tree is run by the interpreter that
runs this script. The exit code is 0 only if every run is equal.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.records import results, runs  # noqa: E402

FOREIGN = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES")
"""Variables of the caller that would reach into the other tree or its `make setup`."""


def clone(commit: str, folder: Path) -> tuple[Path, str]:
    """Clone this repository at a commit, set it up, and return its interpreter and the full hash of the commit."""
    git = ["git", "-C", str(folder)]
    subprocess.run(["git", "clone", "--quiet", "--no-checkout", str(ROOT), str(folder)], check=True)
    subprocess.run([*git, "checkout", "--quiet", "--detach", commit], check=True)
    full = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    setup = subprocess.run(["make", "-C", str(folder), "setup"], capture_output=True, text=True, check=False)
    if setup.returncode:
        raise SystemExit(f"make setup failed at {commit}\n{setup.stdout[-2000:]}{setup.stderr[-2000:]}")
    return folder / ".venv" / "bin" / "python", full


def check_tree(python: Path, tree: Path) -> str:
    """Return the library versions of an interpreter. Exits if it imports tunesmith from another tree."""
    code = (
        "import tunesmith; from importlib.metadata import version;"
        "print(tunesmith.__file__); print('torch', version('torch'), 'transformers', version('transformers'))"
    )
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True, cwd=tree.parent)
    place, versions = done.stdout.splitlines()
    if not Path(place).resolve().is_relative_to(tree.resolve()):
        raise SystemExit(f"{python} imports tunesmith from {place}, not from {tree}")
    return versions


def run_all(pythons: dict[str, Path], table: list[runs.ReferenceRun], folder: Path) -> None:
    """Launch the runs with every interpreter, one tree after the other for each number of processes."""
    for processes in sorted({run.processes for run in table}):
        for side, python in pythons.items():
            started = time.monotonic()
            runs.launch(str(python), table, processes, folder / side)
            print(f"{side}, processes: {processes}: {time.monotonic() - started:.0f} s", flush=True)


def print_table(table: list[runs.ReferenceRun], folder: Path) -> bool:
    """Print a line for each run and the totals; return whether all runs are equal bit for bit."""
    width = max(len(run.name) for run in table)
    print(f"\n{'run':{width}}  processes  steps  result")
    verdicts: Counter[str] = Counter()
    for run in table:
        base, current = (results.read(run.folder(folder / side)) for side in ("base", "current"))
        first = next(results.differences(run.name, base, current), None)
        verdict = "equal" if first is None else first.removeprefix(f"{run.name}: ")
        verdicts["equal" if first is None else "different"] += 1
        print(f"{run.name:{width}}  {run.processes:9}  {len(base['steps']):5}  {verdict}")
    print(f"\n{len(table)} runs, {verdicts['equal']} equal bit for bit")
    return verdicts["different"] == 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare the reference runs with those of a base commit.")
    parser.add_argument("--base", required=True, metavar="COMMIT", help="commit to compare with")
    parser.add_argument("--write", action="store_true", help="write records.json from the base, compare nothing")
    options = parser.parse_args()
    for name in FOREIGN:
        os.environ.pop(name, None)
    with tempfile.TemporaryDirectory(prefix="tunesmith-records-") as temporary:
        folder = Path(temporary)
        base, commit = clone(options.base, folder / "clone")
        print(f"base {commit[:12]}: {check_tree(base, folder / 'clone')}")
        pythons = {"base": base}
        if not options.write:
            pythons["current"] = Path(sys.executable)
            print(f"current: {check_tree(pythons['current'], ROOT)}")
        table = runs.write(folder / "inputs")
        run_all(pythons, table, folder)
        if options.write:
            results.save(results.header(commit), results.read_all(table, folder / "base"))
            print(f"{len(table)} runs written to {results.RECORDS.relative_to(ROOT)}")
            return 0
        return 0 if print_table(table, folder) else 1


if __name__ == "__main__":
    sys.exit(main())
