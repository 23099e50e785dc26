"""Signals in bad moments, plugins that fail, loggers that are down, data that breaks off, a process that is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tunesmith_engine.checkpoint.save import numbered
from tunesmith_engine.runtime.atomic import complaint

from tests import tiny
from tests.e2e.test_resume import config, in_child, losses, same_weights

HEAD = "import os, signal\nfrom tunesmith import Plugin, hookimpl\nplugin = Plugin()\n"
GO_ON = ("plugins=[./mine.py]", "accept_changes=[plugins, data]")  # a local file that reads data is part of both


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of 12 steps that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole")
    tiny.train(config(folder / "whole", "full"))
    return folder / "whole"


def exit_code(path: Path, *overrides: str) -> int:
    """Of the command in a forked child; minus the signal, if one killed it."""

    def run(path: Path, *overrides: str) -> None:
        from tunesmith.cli import main

        main(["train", str(path), *overrides])

    import multiprocessing

    child = multiprocessing.get_context("fork").Process(target=run, args=(path, *overrides))
    child.start()
    child.join(120)
    assert child.exitcode is not None
    return child.exitcode


def ends_as(folder: Path, whole: Path) -> None:
    """The same command goes on to the weights and losses of the run that nothing happened to."""
    (folder / "mine.py").write_text(HEAD)
    assert exit_code(folder / "run.yaml", *GO_ON) == 0
    same_weights(folder / "out", whole / "out")
    assert losses(folder / "out") == losses(whole / "out")


def test_sigterm_within_a_save_ends_after_it_without_another_step(tmp_path: Path, whole: Path) -> None:
    path = config(tmp_path / "cut", "full", save_steps=3)
    (tmp_path / "cut/mine.py").write_text(
        HEAD + "@hookimpl\ndef save_model(run):\n    if run.step == 6: os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    assert exit_code(path, "plugins=[./mine.py]") == 143
    steps = [step for step, _ in numbered(tmp_path / "cut/out")]
    assert steps == [3, 6] and complaint(tmp_path / "cut/out/checkpoint-6") is None
    assert [step for step, _ in losses(tmp_path / "cut/out")][-1] == 6
    ends_as(tmp_path / "cut", whole)


@pytest.mark.parametrize("where", ["on_step", "save_model"])
def test_a_second_sigterm_ends_at_once_and_loses_one_step_at_most(where: str, tmp_path: Path, whole: Path) -> None:
    path = config(tmp_path / "cut", "full")
    twice = "[os.kill(os.getpid(), signal.SIGTERM) for _ in range(2)]"
    (tmp_path / "cut/mine.py").write_text(HEAD + f"@hookimpl\ndef {where}(run):\n    if run.step == 6: {twice}\n")
    assert exit_code(path, "plugins=[./mine.py]") == -signal.SIGTERM
    assert numbered(tmp_path / "cut/out")[-1][0] == 5
    assert all(complaint(folder) is None for _, folder in numbered(tmp_path / "cut/out"))
    ends_as(tmp_path / "cut", whole)


@pytest.mark.parametrize("grace", [0.0, 0.02, 0.1, 0.5])
def test_whatever_the_grace_after_sigterm_the_next_start_goes_on(grace: float, tmp_path: Path, whole: Path) -> None:
    """A scheduler that waits `grace` seconds before it kills."""
    path = config(tmp_path / "cut", "full")
    child = in_child(path)
    while len(numbered(tmp_path / "cut/out")) < 2 and child.exitcode is None:
        time.sleep(0.01)
    os.kill(child.pid or 0, signal.SIGTERM)
    child.join(grace)
    if child.exitcode is None:
        os.kill(child.pid or 0, signal.SIGKILL)
        child.join()
    assert all(complaint(folder) is None for _, folder in numbered(tmp_path / "cut/out"))
    ends_as(tmp_path / "cut", whole)


def test_a_plugin_that_fails_in_a_step_is_named_and_the_run_goes_on_once_it_is_mended(
    tmp_path: Path, whole: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = config(tmp_path / "cut", "full")
    (tmp_path / "cut/mine.py").write_text(
        HEAD + "@hookimpl\ndef on_step(record):\n    assert record.step != 7, 'seven'\n"
    )
    assert exit_code(path, "plugins=[./mine.py]") == 6
    said = capfd.readouterr().err
    assert "mine.py:6: error[hook-failed]: plugin mine" in said and "failed in on_step: AssertionError: seven" in said
    assert "Traceback" not in said and "assert record.step" in (tmp_path / "cut/out/crash.txt").read_text()
    assert json.loads((tmp_path / "cut/out/run.json").read_text())["status"] == "failed"
    assert numbered(tmp_path / "cut/out")[-1][0] == 6
    ends_as(tmp_path / "cut", whole)


@pytest.mark.parametrize(("logger", "function"), [("tensorboard", "Board.step"), ("jsonl", "append")])
def test_a_logger_that_is_down_is_muted_loudly_and_training_goes_on(
    logger: str, function: str, tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    import tunesmith_jsonl.lines
    import tunesmith_tensorboard.board

    def down(*arguments: Any) -> None:
        raise ConnectionError("no route to the logger")

    module = {"tensorboard": tunesmith_tensorboard.board, "jsonl": tunesmith_jsonl.lines}[logger]
    owner, _, name = function.rpartition(".")
    monkeypatch.setattr(getattr(module, owner) if owner else module, name, down)
    tiny.train(config(tmp_path / "cut", "full"), "use_tensorboard=true")
    assert f"plugin {logger}" in (said := capsys.readouterr().err) and "is muted: ConnectionError" in said
    record = json.loads((tmp_path / "cut/out/run.json").read_text())
    assert record["status"] == "done" and "no route" in record["muted"][logger]
    same_weights(tmp_path / "cut/out", whole / "out")


def test_data_that_breaks_off_is_named_and_a_stream_goes_on_where_it_was(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """As when a remote file system goes away: the process that reads is the one that trains."""
    complete = config(tmp_path / "whole", "stream")
    tiny.train(complete)
    path = config(tmp_path / "cut", "stream")
    breaks = (
        "from tunesmith_files.find import rows_of\n"
        "passes = 0\n"
        "class Breaking:\n    def __init__(self, rows): self.rows = rows\n"
        "    def __iter__(self):\n        global passes\n        passes += 1\n"
        "        for number, row in enumerate(self.rows):\n"
        "            if passes == 2 and number == 3: raise OSError(5, 'the disk went away')\n            yield row\n"
        "@hookimpl\ndef load_rows(run, spec):\n    return Breaking(rows_of(run, spec))\n"
    )
    (tmp_path / "cut/mine.py").write_text(HEAD.replace("Plugin()", "Plugin(sources=['file'])") + breaks)
    assert exit_code(path, "plugins=[./mine.py]") == 3
    assert "text.jsonl can't be read after" in (said := capfd.readouterr().err) and "the disk went away" in said
    assert 0 < numbered(tmp_path / "cut/out")[-1][0] < 12
    ends_as(tmp_path / "cut", tmp_path / "whole")


def test_a_lost_process_ends_the_others_and_the_next_start_goes_on(tmp_path: Path) -> None:
    """One of two is killed within a step: no process waits for it for ever, and none stays."""
    keys = {
        "max_steps": 6,
        "num_epochs": 9,
        "save_steps": 1,
        "resume_from_checkpoint": "auto",
        "plugins": ["./mine.py"],
    }
    values = yaml.safe_load(tiny.sft_config(tmp_path, **keys, accept_changes=["plugins"]).read_text())
    for name in ("whole", "cut"):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(values | {"output_dir": str(tmp_path / name)}))
    plugin = tmp_path / "mine.py"
    plugin.write_text(HEAD)
    tiny.torchrun(2, tmp_path / "whole.yaml")
    lost = "if run.world.rank == 1 and run.step == 3: os.kill(os.getpid(), signal.SIGKILL)"
    plugin.write_text(HEAD + f"@hookimpl\ndef prepare_step(run):\n    {lost}\n")
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    script = str(Path(tiny.__file__).with_name("train_many.py"))
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, *launcher, script, str(tmp_path / "cut.yaml")],
        capture_output=True, check=False, timeout=180, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode != 0 and time.monotonic() - started < 120
    left = [line for line in _commands() if str(tmp_path / "cut.yaml") in line]
    assert not left, left
    assert [step for step, _ in numbered(tmp_path / "cut")][-1] == 3
    plugin.write_text(HEAD)
    tiny.torchrun(2, tmp_path / "cut.yaml")
    ours, theirs = tiny.weights(tmp_path / "cut"), tiny.weights(tmp_path / "whole")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def _commands() -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return found
