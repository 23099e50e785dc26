"""No run ends silently by what happens around it: lost output, signals, another run, a lost process."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tunesmith_engine.checkpoint.save import numbered

from tests import tiny
from tunesmith.cli import main

PLUGIN = "import os, signal, sys, time\nfrom tunesmith import Plugin, hookimpl\nplugin = Plugin()\n@hookimpl\n"
SECONDS = 300


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the config of a short run, its model and its data."""
    folder = tmp_path_factory.mktemp("processes")
    tiny.sft_config(folder, max_steps=4)
    return folder


class Child:
    """A process that runs a command of tunesmith. Its streams are files, pipes, or None for a closed one."""

    def __init__(self, words: list[str], out: int | None, err: int | None, before: Callable[[], Any] | None = None):
        def run() -> None:
            for number, stream in ((1, out), (2, err)):
                os.dup2(stream, number) if stream is not None else os.close(number)
            sys.stdout = os.fdopen(1, "w", closefd=False) if out is not None else None  # type: ignore[assignment]
            sys.stderr = os.fdopen(2, "w", closefd=False) if err is not None else None  # type: ignore[assignment]
            if before:
                before()
            main(words)

        self.process = multiprocessing.get_context("fork").Process(target=run)
        self.process.start()

    def code(self) -> int:
        self.process.join(SECONDS)
        assert self.process.exitcode is not None
        return self.process.exitcode


def words(folder: Path, out: Path, body: str = "", *overrides: str, command: str = "train") -> list[str]:
    """Return the words of a command, with a plugin whose code is `body` if there is one."""
    own = []
    if body:
        (folder / f"{out.parent.name}.py").write_text(PLUGIN + body + "\n")
        own = [f"plugins=[./{out.parent.name}.py]"]
    return [command, str(folder / "run.yaml"), f"output_dir={out}", *own, *overrides]


def status(out: Path) -> Any:
    return json.loads((out / "run.json").read_text())["status"]


def opened(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT)


def wait_for(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


# output


def test_run_continues_if_the_reader_of_its_output_has_ended(folder: Path, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    child = Child(words(folder, tmp_path / "out"), writing, opened(tmp_path / "err"))
    assert child.code() == 0 and status(tmp_path / "out") == "done"
    assert (tmp_path / "out/model.safetensors").is_file()
    assert "warning: the output is lost: [Errno 32] Broken pipe; the run continues" in (tmp_path / "err").read_text()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_run_continues_on_a_full_disk_behind_its_output_and_check_fails(folder: Path, tmp_path: Path) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    assert Child(words(folder, tmp_path / "out"), full, full).code() == 0
    assert status(tmp_path / "out") == "done"
    check = Child(words(folder, tmp_path / "next", command="check"), full, opened(tmp_path / "err"))
    assert check.code() == 5 and "the output could not be written" in (tmp_path / "err").read_text()


def test_run_without_output_streams_writes_its_files_as_usual(folder: Path, tmp_path: Path) -> None:
    """A file would get the number of a closed stream, and a library that prints an error would write into it."""
    opens = "def on_start(run):\n    number = os.open(__file__, os.O_RDONLY)\n    assert number > 2, number"
    assert Child(words(folder, tmp_path / "out", opens), None, None).code() == 0
    assert status(tmp_path / "out") == "done"


# signals


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGXCPU"])
def test_signal_ends_the_run_after_a_checkpoint(name: str, folder: Path, tmp_path: Path) -> None:
    kills = f"def compute_loss(run):\n    if run.step == 1: os.kill(os.getpid(), signal.{name})\n    return (yield)"
    body = kills.replace("def", "def", 1)
    arguments = words(folder, tmp_path / "out", body)
    plugin = folder / f"{tmp_path.name}.py"
    plugin.write_text(plugin.read_text().replace("@hookimpl\n", "@hookimpl(wrapper=True)\n"))
    child = Child(arguments, opened(tmp_path / "out.txt"), opened(tmp_path / "err"))
    assert child.code() == 128 + getattr(signal, name)
    assert [step for step, _ in numbered(tmp_path / "out")] == [2] and status(tmp_path / "out") == "interrupted"
    again = "press Ctrl-C again to stop now" if name == "SIGINT" else "a second signal stops now"
    assert f"{name}: finishing step 2, then saving a checkpoint; {again}" in (tmp_path / "err").read_text()


def test_signal_that_is_ignored_stays_ignored(folder: Path, tmp_path: Path) -> None:
    """Nohup starts a run so that it outlives its terminal."""
    kills = "def on_step(run): os.kill(os.getpid(), signal.SIGHUP)"
    out, err = opened(tmp_path / "out.txt"), opened(tmp_path / "err")
    child = Child(
        words(folder, tmp_path / "out", kills), out, err, lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)
    )
    assert child.code() == 0 and status(tmp_path / "out") == "done"


def test_second_ctrl_c_stops_at_once_and_says_so(folder: Path, tmp_path: Path) -> None:
    kills = "def on_step(run):\n    for _ in range(2): os.kill(os.getpid(), signal.SIGINT)"
    child = Child(words(folder, tmp_path / "out", kills), opened(tmp_path / "out.txt"), opened(tmp_path / "err"))
    assert child.code() == -signal.SIGINT
    assert "SIGINT: stopped now; resume_from_checkpoint: auto resumes the run\n" in (tmp_path / "err").read_text()


# two runs in one folder


@pytest.mark.slow
def test_second_run_in_a_folder_is_refused_until_the_first_is_gone(folder: Path, tmp_path: Path) -> None:
    out, waits = tmp_path / "out", f"def on_step(run):\n    while not os.path.exists({str(tmp_path / 'go')!r}): pass"
    first = Child(words(folder, out, waits, "save_steps=1"), opened(tmp_path / "one.txt"), opened(tmp_path / "one.err"))
    wait_for((out / "run.json").exists)
    second = CliRunner().invoke(main, words(folder, out, "", "resume_from_checkpoint=auto"))
    assert second.exit_code == 5, second.output
    name = f"process {first.process.pid} on {socket.gethostname()}"
    assert f"error[in-use]: {out} is in use by another run, {name}" in second.output
    first.process.kill()
    first.process.join()
    assert (out / ".lock").exists()
    third = CliRunner().invoke(main, words(folder, out, "", "resume_from_checkpoint=auto"))
    assert third.exit_code == 0, third.output
    assert status(out) == "done" and not (out / ".lock").exists()


@pytest.mark.slow
def test_lock_of_a_killed_run_is_taken_over_although_its_child_lives(folder: Path, tmp_path: Path) -> None:
    """A child inherits the lock, such as a process that tokenizes."""
    out = tmp_path / "out"
    forks = "def on_start(run):\n    os.fork() or time.sleep(60)\n    os.kill(os.getpid(), signal.SIGKILL)"
    child = Child(words(folder, out, forks), opened(tmp_path / "one.txt"), opened(tmp_path / "one.err"))
    assert child.code() == -signal.SIGKILL
    result = CliRunner().invoke(main, words(folder, out, "", "resume_from_checkpoint=auto"))
    assert result.exit_code == 0, result.output


# two processes


def launch(folder: Path, out: Path, body: str) -> list[Child]:
    """Start the two processes of a run without a launcher, which would end one when the other is lost."""
    from accelerate import PartialState

    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    arguments = words(folder, out, body, "save_steps=1", "max_steps=99", "num_epochs=99")

    def join(rank: str) -> None:
        PartialState._reset_state()  # of runs in the process that forked this one
        shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        os.environ.update(shared, RANK=rank, LOCAL_RANK=rank)

    files = [(opened(out.parent / f"{rank}.txt"), opened(out.parent / f"{rank}.err")) for rank in "01"]
    return [Child(arguments, *files[int(rank)], partial(join, rank)) for rank in "01"]


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_lost_process_ends_the_others_with_its_name(lost: int, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    dies = f"def on_step(run):\n    if run.world.rank == {lost} and run.step == 3: os.kill(os.getpid(), signal.SIGKILL)"
    processes = launch(folder, out, dies)
    code, errors = processes[1 - lost].code(), (tmp_path / f"{1 - lost}.err").read_text()
    assert code == 8, errors
    name = f"rank {lost} (process {processes[lost].process.pid} on {socket.gethostname()})"
    assert f"error[process-lost]: {name} is gone; rank {1 - lost} was in step 4" in errors
    assert "resume_from_checkpoint: auto resumes the run" in errors
    assert status(out) == ("running" if lost == 0 else "failed")
    assert [step for step, _ in numbered(out)] == [1, 2]


@pytest.mark.slow
def test_stopped_process_is_named_within_a_minute(folder: Path, tmp_path: Path) -> None:
    out, errors = tmp_path / "out", tmp_path / "0.err"
    stops = "def on_step(run):\n    if run.world.rank == 1 and run.step == 3: os.kill(os.getpid(), signal.SIGSTOP)"
    processes = launch(folder, out, stops)
    try:
        wait_for((out / "checkpoint-2").exists)
        started = time.monotonic()
        wait_for(lambda: "has not responded" in errors.read_text())
        assert time.monotonic() - started < 60
        assert f"rank 1 (process {processes[1].process.pid} on {socket.gethostname()})" in errors.read_text()
        assert re.search("its last sign was in step [1-4], and rank 0 is in step 4", errors.read_text())
    finally:
        for child in processes:
            child.process.kill()
            child.process.join()
