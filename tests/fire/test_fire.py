"""Under fire: whatever happens to the files of a run, the same command ends it with the same weights, bit for bit."""

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
    """The file layer that fails on request, compiled."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("needs a C compiler on Linux, for the file layer that fails on request")
    library = folder / "faults.so"
    command = [compiler, "-O1", "-shared", "-fPIC", "-o", str(library), str(HERE / "faults.c"), "-ldl"]
    subprocess.run(command, check=True)
    return library


def trials(folder: Path, **numbers: int) -> list[dict[str, object]]:
    """The outcome of each trial."""
    environment = os.environ | {"LD_PRELOAD": str(faults(folder)), "OMP_NUM_THREADS": "1"}
    options = [word for name, number in numbers.items() for word in (f"--{name}", str(number))]
    command = [sys.executable, str(HERE / "trials.py"), str(folder / "runs"), *options]
    (folder / "runs").mkdir()
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, check=False, timeout=300 + 10 * sum(numbers.values())
    )
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    outcomes = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    first, rest = outcomes[0], outcomes[1:]
    assert set("cwsrum") <= set(first["kinds"]), "the file layer sees no creates, writes, syncs, renames or unlinks"
    assert len(rest) == sum(numbers.values())
    return rest


@pytest.mark.parametrize(
    "numbers", [{"kills": 20}, {"errors": 10}, {"sizes": 8}, {"damage": 8}], ids=lambda n: next(iter(n))
)
def test_a_run_under_fire_loses_nothing_but_the_step_it_was_in(numbers: dict[str, int], tmp_path: Path) -> None:
    """Killed before and within writes, renames and unlinks; refused by the disk; out of room; files damaged."""
    wrong = [outcome for outcome in trials(tmp_path, **numbers) if outcome["wrong"]]
    assert not wrong, json.dumps(wrong, indent=1)
