"""torchrun passes signals on to the run, which saves a checkpoint."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tunesmith_engine.checkpoint.save import numbered
from tunesmith_engine.runtime import launch

from tests import tiny
from tunesmith import start

SLOW = (
    "import time\nfrom tunesmith import Plugin, hookimpl\nplugin = Plugin()\n"
    "@hookimpl\ndef on_step(record):\n    time.sleep(0.2)\n"
)


def test_several_gpus_are_used_by_torchrun_with_its_signals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []
    run = start(tiny.sft_config(tmp_path, device=None))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(os, "execv", lambda path, words: started.append(words))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PET_") and name != "RANK"}
    monkeypatch.setattr(os, "environ", environment | {"PET_SHUTDOWN_TIMEOUT": "60"})
    monkeypatch.setattr(sys, "argv", ["tunesmith", "train", "run.yaml"])
    launch.relaunch(run)
    assert started[0][-4:] == ["-m", "tunesmith", "train", "run.yaml"] and "--nproc-per-node=2" in started[0]
    assert "SIGUSR1" in os.environ["PET_SIGNALS_TO_HANDLE"]
    assert os.environ["PET_SHUTDOWN_TIMEOUT"] == "60"


@pytest.mark.slow
def test_sigusr1_to_torchrun_saves_a_checkpoint_on_all_processes(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    config = tiny.sft_config(tmp_path, max_steps=500, num_epochs=999, plugins=["./slow.py"])
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "tunesmith"]
    environment = os.environ | launch.TORCHRUN | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([*command, "train", str(config)], env=environment, stderr=subprocess.DEVNULL)
    metrics = tmp_path / "out/metrics.jsonl"
    while not metrics.exists() or not metrics.read_text():
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(120) != 0
    (step, _), *_ = numbered(tmp_path / "out")
    assert 0 < step < 500
