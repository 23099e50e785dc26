"""The console shows steps and evaluations on terminals and in log files, and prints a summary."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import tunesmith_console
from rich.console import Console
from tunesmith_console.display import Display

from tests.contract.fakes import fake_run
from tunesmith import LogRecord, StepRecord


def record(step: int, log: bool = True, **more: Any) -> LogRecord:
    metrics = {"loss": 2.3412, "grad_norm": 0.934, "learning_rate": 1e-4, "tokens": 99, "tokens_per_second": 1234.4}
    return LogRecord(step, 0.1, metrics if log else {}, **more)


def test_a_log_file_gets_a_line_for_each_logged_step_and_evaluation(capsys: pytest.CaptureFixture[str]) -> None:
    this = fake_run(Path("out"))
    tunesmith_console.on_start(this)
    tunesmith_console.on_step(this, StepRecord(9, 0.1, log=False))
    tunesmith_console.write_log(this, record(10, evaluation={"eval_loss": 2.25}))
    assert capsys.readouterr().out.splitlines() == [
        "step 10/100  loss 2.341  grad_norm 0.934  lr 1.0e-04  1234 tok/s",
        "eval  step 10  eval_loss 2.25",
    ]


def test_the_summary_has_notes_muted_plugins_the_reason_and_the_folder(capsys: pytest.CaptureFixture[str]) -> None:
    this = fake_run(Path("out"), step=40)
    tunesmith_console.on_start(this)
    this.notes["rows [dropped]"] = 3
    this.hooks.muted["tensorboard"] = "on_step: OSError: disk full"
    this.stopped = "loss rose"
    tunesmith_console.on_end(this)
    out = capsys.readouterr().out
    for text in ("rows [dropped]: 3", "tensorboard", "disk full", "loss rose", "40 of 100", "output: out"):
        assert text in out


def test_a_terminal_gets_a_bar_with_numbers_and_evaluations_above_it() -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=80, color_system=None)
    display = Display(fake_run(Path("out"), step=8, total_steps=20), console)
    display.advance(9)
    assert "9/20" in file.getvalue()
    display.advance(20)
    display.write(record(20, evaluation={"eval_loss": 2.25}))
    out = file.getvalue()
    assert "resuming after step 8" in out and "eval  step 20  eval_loss 2.25" in out
    assert "20/20" in out and "loss 2.341" in out and "1234 tok/s" in out and "ETA 0:00:00" in out and "…" not in out
    assert "step 20/20" not in out
    assert (
        display.progress is None and out.count("\x1b[?25l") == out.count("\x1b[?25h") == 1
    )  # the cursor is visible again


def test_only_the_main_process_prints(capsys: pytest.CaptureFixture[str]) -> None:
    this = fake_run(Path("out"), main=False)
    tunesmith_console.on_start(this)
    tunesmith_console.on_step(this, StepRecord(1, 0.1))
    tunesmith_console.on_end(this)
    assert capsys.readouterr().out == ""


def test_a_crash_leaves_no_bar_and_no_hidden_cursor() -> None:
    file = io.StringIO()
    this = fake_run(Path("out"), total_steps=20)
    with pytest.raises(KeyError), this.alive():
        display = this.owned(lambda run: Display(run, Console(file=file, force_terminal=True)))
        raise KeyError
    assert display.progress is None and file.getvalue().count("\x1b[?25h") == 1


def test_the_bar_advances_without_reading_metrics() -> None:
    class Unread(dict[str, Any]):
        def items(self) -> Any:
            raise AssertionError("reading a tensor synchronizes with the device")

    this = fake_run(Path("out"))
    tunesmith_console.on_start(this)
    tunesmith_console.on_step(this, StepRecord(1, 0.1, Unread(), log=False))
