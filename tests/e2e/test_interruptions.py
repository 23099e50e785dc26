"""A run that is interrupted by a signal, a plugin, a logger, its data or a lost process ends with the same weights."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tunesmith_engine.checkpoint.save import numbered
from tunesmith_engine.runtime.atomic import why_invalid

from tests import tiny
from tests.e2e.test_resume import config, in_child, losses, same_weights
from tunesmith.testing import worker

HEAD = "import os, signal\nfrom tunesmith import Plugin, hookimpl\nplugin = Plugin()\n"
GO_ON = (
    "plugins=[./mine.py]",
    "accept_changes=[plugins, data]",
)  # a local plugin that reads data changes plugins and data


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train 12 steps without an interruption and return the folder."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    tiny.train(config(folder / "uninterrupted", "full"))
    return folder / "uninterrupted"


def exit_code(path: Path, *overrides: str) -> int:
    """Train in a forked child, and return its exit code or the negated number of the signal that killed it."""

    def run(path: Path, *overrides: str) -> None:
        from tunesmith.cli import main

        main(["train", str(path), *overrides])

    import multiprocessing

    child = multiprocessing.get_context("fork").Process(target=run, args=(path, *overrides))
    child.start()
    child.join(120)
    assert child.exitcode is not None
    return child.exitcode


def check_resumed_equals_uninterrupted(folder: Path, uninterrupted: Path) -> None:
    """Check that the same command resumes and ends with the weights and losses of the uninterrupted run."""
    (folder / "mine.py").write_text(HEAD)
    assert exit_code(folder / "run.yaml", *GO_ON) == 0
    same_weights(folder / "out", uninterrupted / "out")
    assert losses(folder / "out") == losses(uninterrupted / "out")


def test_sigterm_during_a_save_ends_after_the_save(tmp_path: Path, uninterrupted: Path) -> None:
    path = config(tmp_path / "cut", "full", save_steps=3)
    (tmp_path / "cut/mine.py").write_text(
        HEAD + "@hookimpl\ndef save_model(run):\n    if run.step == 6: os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    assert exit_code(path, "plugins=[./mine.py]") == 143
    steps = [step for step, _ in numbered(tmp_path / "cut/out")]
    assert steps == [3, 6] and why_invalid(tmp_path / "cut/out/checkpoint-6") is None
    assert [step for step, _ in losses(tmp_path / "cut/out")][-1] == 6
    check_resumed_equals_uninterrupted(tmp_path / "cut", uninterrupted)


@pytest.mark.parametrize("where", ["on_step", "save_model"])
def test_second_sigterm_ends_at_once_and_loses_at_most_one_step(
    where: str, tmp_path: Path, uninterrupted: Path
) -> None:
    path = config(tmp_path / "cut", "full")
    twice = "[os.kill(os.getpid(), signal.SIGTERM) for _ in range(2)]"
    (tmp_path / "cut/mine.py").write_text(HEAD + f"@hookimpl\ndef {where}(run):\n    if run.step == 6: {twice}\n")
    assert exit_code(path, "plugins=[./mine.py]") == -signal.SIGTERM
    # The state of step 6 is sealed before plugins export it.
    assert numbered(tmp_path / "cut/out")[-1][0] == (6 if where == "save_model" else 5)
    assert all(why_invalid(folder) is None for _, folder in numbered(tmp_path / "cut/out"))
    check_resumed_equals_uninterrupted(tmp_path / "cut", uninterrupted)


@pytest.mark.parametrize("grace", [0.0, 0.02, 0.1, 0.5])
def test_kill_after_sigterm_at_any_time_is_resumable(grace: float, tmp_path: Path, uninterrupted: Path) -> None:
    """Schedulers send SIGTERM and, after `grace` seconds, SIGKILL."""
    path = config(tmp_path / "cut", "full")
    child = in_child(path)
    while len(numbered(tmp_path / "cut/out")) < 2 and child.exitcode is None:
        time.sleep(0.01)
    os.kill(child.pid or 0, signal.SIGTERM)
    child.join(grace)
    if child.exitcode is None:
        os.kill(child.pid or 0, signal.SIGKILL)
        child.join()
    assert all(why_invalid(folder) is None for _, folder in numbered(tmp_path / "cut/out"))
    check_resumed_equals_uninterrupted(tmp_path / "cut", uninterrupted)


def test_failing_plugin_is_reported_and_the_run_resumes_after_a_fix(
    tmp_path: Path, uninterrupted: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = config(tmp_path / "cut", "full")
    (tmp_path / "cut/mine.py").write_text(
        HEAD + "@hookimpl\ndef on_step(record):\n    assert record.step != 7, 'seven'\n"
    )
    assert exit_code(path, "plugins=[./mine.py]") == 6
    output = capfd.readouterr().err
    assert (
        "mine.py:6: error[hook-failed]: plugin mine" in output and "failed in on_step: AssertionError: seven" in output
    )
    assert "Traceback" not in output and "assert record.step" in (tmp_path / "cut/out/crash.txt").read_text()
    assert json.loads((tmp_path / "cut/out/run.json").read_text())["status"] == "failed"
    assert numbered(tmp_path / "cut/out")[-1][0] == 6
    check_resumed_equals_uninterrupted(tmp_path / "cut", uninterrupted)


@pytest.mark.parametrize(("logger", "function"), [("tensorboard", "Board.write"), ("jsonl", "Lines.flush")])
def test_failing_logger_is_muted_with_a_warning_and_training_continues(
    logger: str, function: str, tmp_path: Path, uninterrupted: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    import tunesmith_jsonl.lines
    import tunesmith_tensorboard.board

    def down(*arguments: Any) -> None:
        raise ConnectionError("no route to the logger")

    module = {"tensorboard": tunesmith_tensorboard.board, "jsonl": tunesmith_jsonl.lines}[logger]
    owner, _, name = function.partition(".")
    monkeypatch.setattr(getattr(module, owner), name, down)
    tiny.train(config(tmp_path / "cut", "full"), "use_tensorboard=true")
    assert f"plugin {logger}" in (output := capsys.readouterr().err) and "is muted: ConnectionError" in output
    record = json.loads((tmp_path / "cut/out/run.json").read_text())
    assert record["status"] == "done" and "no route" in record["muted"][logger]
    same_weights(tmp_path / "cut/out", uninterrupted / "out")


def test_data_error_is_reported_and_the_stream_resumes_at_its_place(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The reader raises an error in the middle of training, as if a remote file system were lost."""
    complete = config(tmp_path / "uninterrupted", "stream")
    tiny.train(complete)
    path = config(tmp_path / "cut", "stream")
    breaks = (
        "from tunesmith_files.find import rows_of\n"
        "passes = 0\n"
        "class Breaking:\n    def __init__(self, rows): self.rows = rows\n"
        "    def __iter__(self):\n        global passes\n        passes += 1\n"
        "        for number, row in enumerate(self.rows):\n"
        "            if passes == 3 and number == 3: raise OSError(5, 'the disk went away')\n            yield row\n"
        "@hookimpl\ndef load_rows(run, spec):\n    return Breaking(rows_of(run, spec))\n"
    )
    (tmp_path / "cut/mine.py").write_text(HEAD.replace("Plugin()", "Plugin(sources=['file'])") + breaks)
    assert exit_code(path, "plugins=[./mine.py]") == 3
    assert "text.jsonl can't be read after" in (output := capfd.readouterr().err) and "the disk went away" in output
    assert 0 < numbered(tmp_path / "cut/out")[-1][0] < 12
    check_resumed_equals_uninterrupted(tmp_path / "cut", tmp_path / "uninterrupted")


@pytest.mark.slow
def test_lost_process_ends_the_others_and_the_run_resumes(tmp_path: Path) -> None:
    """One of two processes is killed in a step. The other must neither wait forever nor remain."""
    keys = {
        "max_steps": 6,
        "num_epochs": 9,
        "save_steps": 1,
        "resume_from_checkpoint": "auto",
        "plugins": ["./mine.py"],
    }
    values = yaml.safe_load(tiny.sft_config(tmp_path, **keys, accept_changes=["plugins"]).read_text())
    for name in ("uninterrupted", "cut"):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(values | {"output_dir": str(tmp_path / name)}))
    plugin = tmp_path / "mine.py"
    plugin.write_text(HEAD)
    tiny.torchrun(2, tmp_path / "uninterrupted.yaml")
    kill = "if run.world.rank == 1 and run.step == 3: os.kill(os.getpid(), signal.SIGKILL)"
    plugin.write_text(HEAD + f"@hookimpl\ndef prepare_step(run):\n    {kill}\n")
    started = time.monotonic()
    completed = subprocess.run(
        worker.command(2, [tmp_path / "cut.yaml"]),
        capture_output=True, check=False, timeout=180, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert completed.returncode != 0 and time.monotonic() - started < 120
    remaining = [line for line in _commands() if str(tmp_path / "cut.yaml") in line]
    assert not remaining, remaining
    assert [step for step, _ in numbered(tmp_path / "cut")][-1] == 3
    plugin.write_text(HEAD)
    tiny.torchrun(2, tmp_path / "cut.yaml")
    weights, expected = tiny.weights(tmp_path / "cut"), tiny.weights(tmp_path / "uninterrupted")
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def _commands() -> list[str]:
    """Return the command lines of all processes of this machine."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return lines
