"""A run that a fault interrupts ends with the same weights, bit for bit, once the same command restarts it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def faults(folder: Path) -> Path:
    """Compile the file layer that fails on request and return the library."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("needs a C compiler on Linux, for the file layer that fails on request")
    library = folder / "faults.so"
    command = [compiler, "-O1", "-shared", "-fPIC", "-o", str(library), str(HERE / "faults.c"), "-ldl"]
    subprocess.run(command, check=True)
    return library


def trials(folder: Path, **numbers: int) -> list[dict[str, object]]:
    """Run trials.py and return one outcome per trial: its name and what went wrong."""
    environment = os.environ | {"LD_PRELOAD": str(faults(folder)), "OMP_NUM_THREADS": "1"}
    options = [word for name, number in numbers.items() for word in (f"--{name}", str(number))]
    command = [sys.executable, str(HERE / "trials.py"), str(folder / "runs"), *options]
    (folder / "runs").mkdir()
    completed = subprocess.run(
        command, capture_output=True, text=True, env=environment, check=False, timeout=300 + 10 * sum(numbers.values())
    )
    assert completed.returncode == 0, completed.stdout[-1000:] + completed.stderr[-3000:]
    outcomes = [json.loads(line) for line in completed.stdout.splitlines() if line.startswith("{")]
    header, results = outcomes[0], outcomes[1:]
    assert set("cwsrum") <= set(header["kinds"]), (
        "the file layer must see creates, writes, syncs, renames, unlinks and mkdirs"
    )
    assert len(results) == sum(numbers.values())
    return results


@pytest.mark.parametrize(
    "numbers",
    [
        pytest.param({"kills": 20}, marks=pytest.mark.slow, id="kills"),
        pytest.param({"errors": 3}, id="few errors"),
        pytest.param({"errors": 10}, marks=pytest.mark.slow, id="errors"),
        pytest.param({"sizes": 8}, marks=pytest.mark.slow, id="sizes"),
        pytest.param({"damage": 8}, marks=pytest.mark.slow, id="damage"),
    ],
)
def test_interrupted_run_loses_at_most_one_step(numbers: dict[str, int], tmp_path: Path) -> None:
    """The faults are kills before and during file operations, disk errors, a full disk and damaged files."""
    wrong = [outcome for outcome in trials(tmp_path, **numbers) if outcome["wrong"]]
    assert not wrong, json.dumps(wrong, indent=1)
