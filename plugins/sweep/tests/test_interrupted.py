"""A sweep that was killed or interrupted continues, and ends with the weights of one that was not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import tiny

pytestmark = pytest.mark.slow
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
FILE = "learning_rate: [0.01, 0.003, 0.001]\n_: [{weight_decay: 0.0, seed: 1}, {weight_decay: 0.1, seed: 2}]\n"


def command(folder: Path, out: str, *options: str) -> list[str]:
    words = ["sweep", str(folder / "sweep.yaml"), "--config", str(folder / "run.yaml")]
    return [sys.executable, "-m", "tunesmith", *words, f"output_dir={folder / out}", *options]


def run(folder: Path, out: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(folder, out, *options), capture_output=True, text=True, env=ENVIRONMENT, timeout=280, check=False
    )


def state(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "sweep.json").read_text("utf-8"))["trials"]  # type: ignore[no-any-return]


def begin(folder: Path, out: str, until: Callable[[], bool]) -> subprocess.Popen[str]:
    """Start a sweep, and return its process when a condition holds."""
    process = subprocess.Popen(command(folder, out), text=True, stderr=subprocess.PIPE, env=ENVIRONMENT)
    deadline = time.monotonic() + 120
    while not until():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    return process


def children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(number) for number in tasks]


def saved(folder: Path, out: str, number: int, state_of: str = "checkpoint-2") -> Callable[[], bool]:
    return lambda: any((folder / out).glob(f"{number:04d}-*/{state_of}/manifest.json"))


def test_a_sweep_killed_and_interrupted_ends_with_the_weights_of_one_that_was_not(tmp_path: Path) -> None:
    tiny.sft_config(tmp_path, number=40, val_set_size=0.2, eval_steps=2, save_steps=2, max_steps=10)
    (tmp_path / "sweep.yaml").write_text(FILE)
    reference = run(tmp_path, "reference")
    assert reference.returncode == 0, reference.stderr

    process = begin(tmp_path, "killed", saved(tmp_path, "killed", 2))
    victims = [process.pid, *children(process.pid)]
    assert len(victims) == 2
    for victim in victims:
        os.kill(victim, signal.SIGKILL)
    process.wait()
    assert [t["state"] for t in state(tmp_path / "killed")][:2] == ["finished", "running"]

    process = begin(tmp_path, "killed", saved(tmp_path, "killed", 4))
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130, process.stderr and process.stderr.read()
    assert [t["state"] for t in state(tmp_path / "killed")][:4] in (
        ["finished"] * 3 + ["interrupted"],
        ["finished"] * 4,  # the trial ended before the signal reached it
    )

    last = run(tmp_path, "killed")
    assert last.returncode == 0, last.stderr
    assert "resuming 0004" in last.stdout or "resuming 0004" in last.stderr
    assert [t["state"] for t in state(tmp_path / "killed")] == ["finished"] * 6
    for trial in state(tmp_path / "reference"):
        tiny.assert_same_weights(tmp_path / "killed" / trial["name"], tmp_path / "reference" / trial["name"])
    again = {t["name"]: (t["value"], t["step"]) for t in state(tmp_path / "killed")}
    assert again == {t["name"]: (t["value"], t["step"]) for t in state(tmp_path / "reference")}
    assert [t["attempts"] for t in state(tmp_path / "killed")] == [1, 2, 1, 2, 1, 1]
    assert len(list((tmp_path / "killed" / "prepared").iterdir())) == 2  # val_set_size draws by the seed


def test_only_the_sweep_is_killed_and_the_next_one_waits_for_its_trial(tmp_path: Path) -> None:
    tiny.sft_config(tmp_path, number=40, val_set_size=0.2, eval_steps=2, save_steps=2, max_steps=10)
    (tmp_path / "sweep.yaml").write_text("learning_rate: [0.01]\n")
    process = begin(tmp_path, "out", lambda: any((tmp_path / "out").glob("0001-*/.lock")))
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    after = run(tmp_path, "out")
    assert after.returncode == 0, after.stderr
    (trial,) = state(tmp_path / "out")
    assert (trial["state"], trial["attempts"]) == ("finished", 1)
    assert "still trained by process" in after.stdout


OPTUNA = """
config: run.yaml
method: optuna
trials: 8
seed: 3
random_trials: 3
parameters:
  learning_rate: {loguniform: [1e-4, 3e-2]}
  weight_decay: {uniform: [0, 0.3]}
  warmup_steps: {int: [1, 4]}
  optimizer: [adamw_torch, sgd]
pruning: {first_trials: 2}
"""


def test_optuna_ends_trials_early_and_a_killed_sweep_ends_the_same_ones(tmp_path: Path) -> None:
    pytest.importorskip("optuna", reason="pip install optuna")
    tiny.sft_config(tmp_path, number=40, val_set_size=0.2, eval_steps=2, save_steps=2, max_steps=10)
    (tmp_path / "sweep.yaml").write_text(OPTUNA)
    assert run(tmp_path, "once").returncode == 0
    process = begin(tmp_path, "killed", saved(tmp_path, "killed", 3))
    for victim in [process.pid, *children(process.pid)]:
        os.kill(victim, signal.SIGKILL)
    process.wait()
    assert run(tmp_path, "killed").returncode == 0
    keys = ("name", "state", "value", "step", "values")
    once, killed = ([{key: t[key] for key in keys} for t in state(tmp_path / out)] for out in ("once", "killed"))
    assert once == killed
    pruned = [t for t in once if t["state"] == "pruned"]
    assert pruned and {t["state"] for t in once} == {"finished", "pruned"}
    for trial in pruned:
        status = json.loads((tmp_path / "once" / trial["name"] / "run.json").read_text())["status"]
        assert status in ("interrupted", "done")  # done, if it ended before the signal reached it
    for trial in once:
        if trial["state"] == "finished":
            tiny.assert_same_weights(tmp_path / "once" / trial["name"], tmp_path / "killed" / trial["name"])


def test_a_failed_trial_ends_no_other_and_starts_again_only_if_asked_for(tmp_path: Path) -> None:
    (tmp_path / "fails.py").write_text(
        "from pathlib import Path\n\nfrom tunesmith import Plugin, hookimpl\n\nplugin = Plugin()\n\n\n"
        "@hookimpl\ndef on_step(run, record):\n"
        f"    if run.core.seed == 1 and not Path({str(tmp_path / 'fixed')!r}).exists():\n"
        "        raise ValueError('broken')\n"
    )
    tiny.sft_config(tmp_path, max_steps=2, plugins=["./fails.py"])
    (tmp_path / "sweep.yaml").write_text("seed: [1, 2]\n")
    first = run(tmp_path, "out", "--jobs", "2")
    assert first.returncode == 1 and "--retry-failed starts them again" in first.stderr
    assert [t["state"] for t in state(tmp_path / "out")] == ["failed", "finished"]
    assert "broken" in state(tmp_path / "out")[0]["reason"]
    again = run(tmp_path, "out")
    assert again.returncode == 1 and [t["attempts"] for t in state(tmp_path / "out")] == [1, 1]
    (tmp_path / "fixed").touch()
    last = run(tmp_path, "out", "--retry-failed")
    assert last.returncode == 0, last.stderr
    assert [(t["state"], t["attempts"]) for t in state(tmp_path / "out")] == [("finished", 2), ("finished", 1)]
