"""Several training processes call the rewards of their shares; rewards end with training, which gets their warnings."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests import tiny
from tests.contract.test_rewards import config
from tunesmith.files.record import last_record
from tunesmith.testing import worker

FUNCTIONS = """
import os

def odd(completion_ids):
    return [sum(token % 2 for token in tokens) / len(tokens) for tokens in completion_ids]

def fails_once(prompts):
    if os.environ["RANK"] == "1":
        raise KeyError("missing")
    return [float(i) for i, _ in enumerate(prompts)]
"""


@pytest.mark.slow
def test_two_processes_score_what_one_scores(tmp_path: Path) -> None:
    model = tiny.model_folder(tmp_path / "model")
    path = config(tmp_path, model, "./scored.py:odd", code=FUNCTIONS)
    tiny.train(path)
    keys = {"gradient_accumulation_steps": 1, "output_dir": str(tmp_path / "two")}
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | keys))
    tiny.torchrun(2, tmp_path / "two.yaml")
    for line, one in zip(tiny.metrics(tmp_path / "two"), tiny.metrics(tmp_path / "out"), strict=True):
        assert line["rewards/odd/mean"] == pytest.approx(one["rewards/odd/mean"], abs=1e-6)
        assert line["loss"] == pytest.approx(one["loss"], abs=1e-5)


@pytest.mark.slow
def test_a_reward_that_fails_on_one_process_ends_all_with_its_error(tmp_path: Path) -> None:
    model = tiny.model_folder(tmp_path / "model")
    path = config(tmp_path, model, "./scored.py:fails_once", code=FUNCTIONS)
    started = time.monotonic()
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    completed = subprocess.run(
        worker.command(2, [path]), capture_output=True, text=True, env=environment, check=False, timeout=120
    )
    assert completed.returncode != 0 and time.monotonic() - started < 60
    assert "reward 'fails_once' failed on row" in completed.stderr and "KeyError: 'missing'" in completed.stderr


TRAINER = """
import os, sys, time
from pathlib import Path
from tunesmith_engine.rewards.pool import Function, Pool
processes = Pool([Function("", Path(sys.argv[1]) / "scored.py", "fine", {})], Path(sys.argv[1]), 1)
processes.imported(0)
print(processes.workers[0].process.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the death of a parent is a signal on Linux only")
def test_processes_end_with_a_trainer_that_is_killed(tmp_path: Path) -> None:
    (tmp_path / "scored.py").write_text("def fine(): ...\n", encoding="utf-8")
    with subprocess.Popen([sys.executable, "-c", TRAINER, tmp_path], stdout=subprocess.PIPE, text=True) as trainer:
        assert trainer.stdout is not None
        pid = int(trainer.stdout.readline())
        trainer.send_signal(signal.SIGKILL)
    until = time.monotonic() + 10
    while alive(pid) and time.monotonic() < until:
        time.sleep(0.05)
    assert not alive(pid)


def alive(pid: int) -> bool:
    """Return True if a process runs; one that ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_warnings_of_a_function_are_notes_of_the_run(tmp_path: Path) -> None:
    model = tiny.model_folder(tmp_path / "model")
    code = """
        import warnings
        def warns(completions, **columns):
            warnings.warn(f"{len(completions)} replies can't be read")
            warnings.warn("old", DeprecationWarning)
            return [float(len(text)) for text in completions]
    """
    tiny.train(config(tmp_path, model, "./scored.py:warns", code=code))
    notes = last_record(tmp_path / "out")["notes"]
    assert [text for text in notes.values() if "can't be read" in text] == ["warns: 8 replies can't be read"]
