"""`tunesmith train --launcher`: the command that is started, what is refused, and two processes with each launcher."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from tunesmith_engine.runtime import launch

from tests import tiny
from tunesmith.cli import main

DIE = """
import os
from pathlib import Path
from tunesmith import Plugin, hookimpl
plugin = Plugin()
@hookimpl
def on_step(run, record):
    mark = Path(run.output_dir, "died")
    if record.step == 4 and run.world.rank == 1 and not mark.exists():
        mark.touch()
        os._exit(9)
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.sft_config(tmp_path_factory.mktemp("launchers"), max_steps=6, num_epochs=9)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Return the commands that a command of tunesmith is replaced by, in a process that no launcher has started."""
    commands: list[list[str]] = []

    def start(path: str, words: list[str]) -> None:
        commands.append(words)
        raise SystemExit

    outside = {k: v for k, v in os.environ.items() if not k.startswith(("PET_", "TORCHELASTIC")) and k != "RANK"}
    monkeypatch.setattr(os, "environ", outside)
    monkeypatch.setattr(os, "execv", start)
    return commands


def train(monkeypatch: pytest.MonkeyPatch, config: Path, *words: str) -> str:
    """Call `tunesmith train` with words, and return what it prints."""
    command = ["train", str(config), *words]
    monkeypatch.setattr(sys, "argv", ["tunesmith", *command])
    result = CliRunner().invoke(main, command)
    return result.output + result.stderr


TORCHRUN, ACCELERATE = "torch.distributed.run", "accelerate.commands.launch"
TRAIN = "-m tunesmith train RUN"


@pytest.mark.parametrize(
    ("words", "command"),
    [
        ("--launcher torchrun seed=3", f"{TORCHRUN} --standalone --nproc-per-node=1 {TRAIN} seed=3"),
        ("seed=3 --max-restarts 2", f"{TORCHRUN} --standalone --nproc-per-node=1 --max-restarts=2 {TRAIN} seed=3"),
        (
            "--launcher=torchrun -- --nproc_per_node=2 --nnodes=2 --rdzv_endpoint=a:1",
            f"{TORCHRUN} --rdzv-backend=c10d --nproc_per_node=2 --nnodes=2 --rdzv_endpoint=a:1 {TRAIN}",
        ),
        (
            "--launcher torchrun -- --nnodes 2 --node-rank 1 --master_addr a",
            f"{TORCHRUN} --nproc-per-node=1 --nnodes 2 --node-rank 1 --master_addr a {TRAIN}",
        ),
        (
            "--launcher accelerate --max_restarts=1 -- --num_processes 2",
            f"{ACCELERATE} --multi_gpu --max_restarts=1 --num_processes 2 {TRAIN}",
        ),
        ("--launcher accelerate", f"{ACCELERATE} --num_processes=1 {TRAIN} --launcher python"),
    ],
)
def test_the_command_that_is_started(
    config: Path, monkeypatch: pytest.MonkeyPatch, started: list[list[str]], words: str, command: str
) -> None:
    printed = train(monkeypatch, config, *words.split())
    assert started, printed
    assert started[0] == [sys.executable, "-m", *command.replace("RUN", str(config)).split()]
    assert f"starting: {sys.executable} -m {command.split(maxsplit=1)[0]}" in printed
    assert os.environ["PYTHONSAFEPATH"] == "1" and "SIGUSR1" in os.environ["PET_SIGNALS_TO_HANDLE"]
    restarting = "restarts" in words
    assert ("TORCH_DISABLE_SHARE_RDZV_TCP_STORE" in os.environ) == restarting


def test_a_number_of_machines_that_may_change_starts_processes_again(
    config: Path, monkeypatch: pytest.MonkeyPatch, started: list[list[str]]
) -> None:
    train(monkeypatch, config, "--launcher", "torchrun", "--", "--nnodes=1:2", "--rdzv_endpoint=a:1")
    assert started and "TORCH_DISABLE_SHARE_RDZV_TCP_STORE" in os.environ


def test_variables_of_torchrun_are_left_to_the_user(
    config: Path, monkeypatch: pytest.MonkeyPatch, started: list[list[str]]
) -> None:
    os.environ |= {"PET_NNODES": "2", "PET_NPROC_PER_NODE": "4", "PET_SHUTDOWN_TIMEOUT": "60"}
    train(monkeypatch, config, "--launcher", "torchrun")
    assert started[0][1:] == ["-m", "torch.distributed.run", "-m", "tunesmith", "train", str(config)]
    assert os.environ["PET_SHUTDOWN_TIMEOUT"] == "60"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--launcher torchrn", "unknown launcher 'torchrn'\n  help: did you mean 'torchrun'?"),
        ("--launcher deepspeed", "the launcher deepspeed is not installed\n  help: pip install deepspeed"),
        ("-- --nnodes=2", "arguments after -- need a launcher"),
        ("--launcher accelerate -- --cpu --num_processes=2", "--cpu starts one process"),
        ("--launcher python --max-restarts 1", "python does not start processes again"),
        ("--launcher torchrun --max-restarts 1 -- --max_restarts=2", "--max-restarts is given twice"),
    ],
)
def test_refused(
    config: Path, monkeypatch: pytest.MonkeyPatch, started: list[list[str]], words: str, message: str
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "deepspeed" else find_spec(name))
    assert message in train(monkeypatch, config, *words.split())
    assert not started


def test_a_process_of_a_launcher_starts_no_other(
    config: Path, monkeypatch: pytest.MonkeyPatch, started: list[list[str]]
) -> None:
    os.environ["RANK"] = "0"
    run = tiny.start(config)
    launch.relaunch(run)
    assert "a launcher has already started" in train(monkeypatch, config, "--launcher", "torchrun")
    assert not started


def test_a_restart_resumes_only_from_checkpoints_of_its_own(
    tmp_path: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resumption(*words: str) -> tuple[str, ...]:
        return launch.resumption(tiny.start(config, f"output_dir={tmp_path}", *words))

    auto = ("resume_from_checkpoint=auto",)
    manifest = tmp_path / "checkpoint-3/manifest.json"
    manifest.parent.mkdir()
    manifest.write_text("{}")
    os.utime(manifest, (1, 1))
    chosen = f"resume_from_checkpoint={manifest.parent}"
    assert not resumption(chosen), "not by a launcher of ours"
    monkeypatch.setenv("TUNESMITH_LAUNCHED", str(time.time() - 10))
    assert not resumption(chosen), "the first start"
    assert not resumption(), "the first start"
    manifest.touch()
    assert resumption() == auto, "machines have joined or left, which torchrun does not count"
    assert not resumption(chosen)
    os.utime(manifest, (1, 1))
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert resumption() == auto
    assert not resumption(*auto), "is written already"
    assert not resumption(chosen), "that of an earlier run"
    manifest.touch()
    assert resumption(chosen) == auto


def test_restarts_never_resume_an_earlier_run(
    tmp_path: Path, config: Path, monkeypatch: pytest.MonkeyPatch, started: list[list[str]]
) -> None:
    (tmp_path / "run.json").write_text('{"status": "done"}')
    words = ("--max-restarts", "1", f"output_dir={tmp_path}")
    assert "already contains a run" in train(monkeypatch, config, *words)
    assert not started
    train(monkeypatch, config, *words, "resume_from_checkpoint=auto")
    assert started


def launched(config: Path, name: str, *words: str) -> Path:
    """Train in a process of its own, and return output_dir, the folder `name`."""
    out = config.parent / name
    command = [sys.executable, "-m", "tunesmith", "train", str(config), f"output_dir={out}", *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return out


@pytest.mark.slow
def test_each_launcher_starts_two_processes_with_equal_losses(config: Path) -> None:
    folders = [
        launched(config, "torchrun", "--launcher", "torchrun", "--", "--nproc-per-node", "2"),
        launched(config, "accelerate", "--launcher", "accelerate", "--", "--num_processes", "2"),
    ]
    if importlib.util.find_spec("deepspeed"):
        folders.append(launched(config, "deepspeed", "--launcher", "deepspeed", "--", "--num_gpus", "2"))
    for folder in folders:
        assert "2 x cpu" in json.loads((folder / "run.json").read_text())["outline"]["processes"], folder
    first, *others = [[line["loss"] for line in tiny.metrics(folder)] for folder in folders]
    assert len(first) == 6 and all(losses == first for losses in others)


@pytest.mark.slow
def test_a_process_that_dies_is_started_again_and_resumes(config: Path) -> None:
    (config.parent / "die.py").write_text(DIE)
    words = ("--launcher", "torchrun", "--max-restarts", "1", "save_steps=3", "plugins=[./die.py]")
    out = launched(config, "restarted", *words, "--", "--nproc_per_node=2")
    assert (out / "died").exists()
    assert [line["step"] for line in tiny.metrics(out)] == [1, 2, 3, 4, 5, 6]
    assert "checkpoint-3" in (out / "run.json").read_text()
