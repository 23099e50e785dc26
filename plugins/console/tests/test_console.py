"""The console shows what a run trains, its steps and evaluations, on terminals and in log files, and a summary."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tunesmith_console
from rich.console import Console
from tunesmith_console.display import Display
from tunesmith_console.texts import clock

from tests.contract.fakes import fake_run
from tunesmith import LogRecord, Run, StepRecord
from tunesmith.outline import count, duration, share

OUTLINE = {
    "model": "models/base", "parameters": 1_240_000_000, "trained_parameters": 5_600_000, "method": "dpo",
    "adapter": "lora", "processes": "one process, 1 x cpu, float32", "rows": 2178, "rows_kept": 2100,
    "train_examples": 1991, "eval_examples": 109, "tokens": 63195, "trained_tokens": 20795, "steps": 720,
    "steps_per_epoch": 120, "epochs": 6.0, "packs_per_step": 8, "packed": True, "tokens_per_step": 4012,
    "memory": {"weights": 2_000_000_000, "gradients": 22_400_000, "optimizer": 44_800_000}, "report": "report.html",
}  # fmt: skip


def record(step: int, log: bool = True, **more: Any) -> LogRecord:
    metrics = {"loss": 2.3412, "grad_norm": 0.934, "learning_rate": 1e-4, "tokens": 99, "tokens_per_second": 1234.4}
    return LogRecord(step, 0.1, metrics if log else {}, **more)


def terminal(width: int = 80) -> tuple[io.StringIO, Console]:
    file = io.StringIO()
    return file, Console(file=file, force_terminal=True, width=width, color_system=None)


def test_six_lines_describe_the_run_before_the_first_step(capsys: pytest.CaptureFixture[str]) -> None:
    this = fake_run(Path("out"), total_steps=720)
    this.outline = OUTLINE
    this.note("run.yaml:3:1: learning_rate", "50 is large")
    tunesmith_console.on_start(this)
    assert capsys.readouterr().out.splitlines() == [
        "model   models/base: 1.24B parameters, 5.6M trained (0.45 %)",
        "method  dpo with a lora adapter; one process, 1 x cpu, float32",
        "data    2,178 rows, 78 dropped, 109 held out; 63.2k tokens, 33 % of them trained",
        "steps   720 (6 epochs); each 8 packs, about 4,012 tokens",
        "memory  2.07 GB for weights, gradients and optimizer, activations not counted",
        "output  out, report.html",
        "note: run.yaml:3:1: learning_rate: 50 is large",
    ]


def test_the_opening_fits_a_terminal_of_80_columns() -> None:
    this = fake_run(Path("out" * 30))
    this.outline = OUTLINE
    file, console = terminal()
    display = Display(this, console, console)
    display.begin()
    display.close()
    text = file.getvalue().partition("\x1b")[0]
    assert len(text.splitlines()) > 6 and all(len(line) <= 80 for line in text.splitlines() if "outout" not in line)
    assert "out" * 30 in text  # a path is not broken, so that it can be copied


def test_a_log_file_gets_a_line_for_each_logged_step_and_evaluation(capsys: pytest.CaptureFixture[str]) -> None:
    this = fake_run(Path("out"))
    tunesmith_console.on_start(this)
    tunesmith_console.on_step(this, StepRecord(9, 0.1, log=False))
    tunesmith_console.write_log(this, record(10, evaluation={"eval_loss": 2.25}))
    assert capsys.readouterr().out.splitlines() == [
        "step 10/100  loss 2.341  grad_norm 0.934  lr 1.0e-04  1,234 tok/s",
        "eval  step 10  eval_loss 2.25",
    ]


def test_the_loss_of_a_line_is_the_mean_since_the_last_line(capsys: pytest.CaptureFixture[str]) -> None:
    this = fake_run(Path("out"))
    tunesmith_console.on_start(this)
    for step, loss in enumerate((8.0, 1.0, 3.0, 4.0, 6.0, 2.0), 1):
        tunesmith_console.on_step(this, StepRecord(step, 0.1, {"loss": loss}, log=step % 3 == 0))
        if step % 3 == 0:
            tunesmith_console.write_log(this, record(step))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[1] for line in lines] == ["loss 4", "loss 4"]


def test_phases_are_lines_of_stderr_until_the_first_step(capsys: pytest.CaptureFixture[str]) -> None:
    this = fake_run(Path("out"))
    for done in (None, 1, 2):
        tunesmith_console.on_progress(this, "tokenizing rows", done, 2)
    tunesmith_console.on_progress(this, "loading models/base", None, None)
    tunesmith_console.on_start(this)
    tunesmith_console.on_progress(this, "evaluating", 1, 9)
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.splitlines() == ["tokenizing rows ...", "loading models/base ..."]


def test_a_terminal_shows_one_phase_at_a_time_and_erases_the_last_one() -> None:
    file, console = terminal()
    display = Display(fake_run(Path("out")), console, console)
    display.report("tokenizing rows", 512, 2178)
    display.report("loading " + "x" * 200, None, None)
    display.report("", None, None)
    display.print("done")
    parts = file.getvalue().split("\r\x1b[2K")
    assert parts[1] == "tokenizing rows: 512 of 2,178" and len(parts[2]) == 79 and parts[3] == "done\n"


def test_the_summary_has_notes_muted_plugins_the_reason_and_the_folder(capsys: pytest.CaptureFixture[str]) -> None:
    this = fake_run(Path("out"), step=40)
    this.notes["known before"] = 1
    tunesmith_console.on_start(this)
    this.notes["rows [dropped]"] = 3
    this.hooks.muted["tensorboard"] = "on_step: OSError: disk full"
    this.stopped = "loss rose"
    tunesmith_console.on_end(this)
    summary = capsys.readouterr().out.partition("summary")[2]
    for text in ("rows [dropped]: 3", "tensorboard", "disk full", "loss rose", "40 of 100", "output: out"):
        assert text in summary
    assert "known before" not in summary  # it was printed before the first step


def test_the_summary_has_the_findings_in_one_block(capsys: pytest.CaptureFixture[str]) -> None:
    this = fake_run(Path("out"), step=40)
    tunesmith_console.on_start(this)
    finding = {"id": "dead-groups", "severity": "warning", "steps": [3, 40], "message": "x\x1b[31m", "advice": "Do y."}
    this.notes["findings"] = [finding, finding | {"id": "reward-flat", "severity": "note"}]
    tunesmith_console.on_end(this)
    lines = capsys.readouterr().out.partition("summary\n")[2].splitlines()
    assert lines[1:6] == [
        "  2 findings in the metrics:",
        "    warning dead-groups, steps 3 to 40: x\\x1b[31m",
        "      Do y.",
        "    note reward-flat, steps 3 to 40: x\\x1b[31m",
        "      Do y.",
    ]
    this.notes["findings"] = "of another plugin"
    tunesmith_console.on_end(this)
    assert "  findings: of another plugin\n" in capsys.readouterr().out


def test_the_summary_has_time_speed_memory_the_last_and_the_best_evaluation(
    capsys: pytest.CaptureFixture[str],
) -> None:
    this = fake_run(Path("out"))
    this.outline, this.memory_used = {**OUTLINE, "epochs": None}, SimpleNamespace(peak=52_000_000)  # type: ignore[assignment]
    tunesmith_console.on_start(this)
    for step, loss in ((50, 0.5), (100, 0.75)):
        metrics = {"loss": loss, "tokens": step * 100, "tokens_per_second": 1000.0 * step / 50}
        tunesmith_console.on_step(this, StepRecord(step, 1.0, {"loss": loss}))
        tunesmith_console.write_log(this, LogRecord(step, 1.0, metrics, {"eval_loss": loss, "eval_f1": 0.1}))
    this.step, this.best = 100, (50, 0.5)
    tunesmith_console.on_end(this)
    lines = capsys.readouterr().out.partition("summary\n")[2].splitlines()
    assert lines[0].startswith("  100 of 100 steps done in 0.")
    # 5,000 tokens in 5 seconds, and 5,000 in 2.5
    assert lines[0].endswith(" s, 1,333 tok/s, 52 MB at the peak")
    assert lines[1] == "  loss 0.75, that of the last step"
    assert lines[2] == "  eval_loss 0.75 at step 100; the best was 0.5 at step 50"
    assert lines[3:] == ["  output: out", "  report: out/report.html"]


def test_an_interrupted_run_names_the_line_that_resumes_it(capsys: pytest.CaptureFixture[str]) -> None:
    this = fake_run(Path("out"), step=3)
    this.config.document.values["learning_rate"] = 2e-4
    this.config.document.keys[("learning_rate",)] = "command line (learning_rate)"
    tunesmith_console.on_start(this)
    this.interrupted = True
    tunesmith_console.on_end(this)
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "next: tunesmith train run.yaml learning_rate=0.0002 resume_from_checkpoint=auto"


def test_a_terminal_gets_a_bar_with_numbers_and_evaluations_above_it() -> None:
    file, console = terminal()
    this = fake_run(Path("out"), step=8, total_steps=20)
    this.outline, this.memory_used = OUTLINE, SimpleNamespace(peak=52_000_000)  # type: ignore[assignment]
    display = Display(this, console, console)
    display.begin()
    display.advance(StepRecord(9, 0.1, {"loss": 2.0}))
    assert "step 9/20" in file.getvalue() and "ETA" in file.getvalue()
    display.write(record(9))
    display.report("evaluating", 2, 3)
    assert "evaluating: 2 of 3" in file.getvalue()
    display.write(record(10))
    display.last_drawn = 0.0
    display.advance(StepRecord(11, 0.1, {"loss": 2.0}))
    display.advance(StepRecord(20, 0.1))
    display.write(record(20, evaluation={"eval_loss": 2.25}))
    out = file.getvalue()
    assert "resuming after step 8" in out and "eval  step 20  eval_loss 2.25" in out
    assert "epoch 0.10/6  loss 2.341  lr 1.0e-04  1,234 tok/s  52 MB" in out and "…" not in out
    assert display.bar is None
    assert out.count("\x1b[?25l") == out.count("\x1b[?25h") == 1  # the cursor is visible again


def test_an_interrupted_run_leaves_no_bar_above_what_plugins_print_at_its_end() -> None:
    file, console = terminal()
    this = fake_run(Path("out"), step=3, total_steps=20)
    display = Display(this, console, console)
    display.begin()
    display.advance(StepRecord(4, 0.1))
    this.interrupted = True
    display.report("", None, None)
    console.print("samples")
    assert display.bar is None and "step 4/20" not in file.getvalue().rpartition("\x1b[2K")[2]


@pytest.mark.parametrize("width", [80, 120])
def test_an_evaluation_breaks_between_numbers(width: int) -> None:
    file, console = terminal(width)
    display = Display(fake_run(Path("out")), console, console)
    values = {f"eval_measure_{i}": i + 0.123456 for i in range(9)}
    display.write(record(20, log=False, evaluation=values))
    lines = file.getvalue().splitlines()
    assert len(lines) > 1 and all(len(line) <= width for line in lines)
    assert all(any(f"{name} {value:.4g}" in line for line in lines) for name, value in values.items())


def test_only_the_main_process_prints(capsys: pytest.CaptureFixture[str]) -> None:
    this = fake_run(Path("out"), main=False)
    this.outline = OUTLINE
    this.progress("loading")
    tunesmith_console.on_start(this)
    tunesmith_console.on_step(this, StepRecord(1, 0.1))
    tunesmith_console.on_end(this)
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_a_crash_leaves_no_bar_and_no_hidden_cursor() -> None:
    file, console = terminal()

    def begun(run: Run) -> Display:
        display = Display(run, console, console)
        display.begin()
        return display

    this = fake_run(Path("out"), total_steps=20)
    with pytest.raises(KeyError), this.alive():
        display = this.owned(begun)
        display.advance(StepRecord(1, 0.1))
        raise KeyError
    assert display.bar is None and file.getvalue().count("\x1b[?25h") == 1
    assert "step 1/20" not in file.getvalue().rpartition("\x1b[2K")[2]  # erased


def test_the_bar_advances_without_reading_the_loss() -> None:
    class Unread:
        def __add__(self, other: Any) -> Any:
            return self

        def __float__(self) -> float:
            raise AssertionError("reading a tensor synchronizes with the device")

    this = fake_run(Path("out"))
    tunesmith_console.on_start(this)
    for step in (1, 2):
        tunesmith_console.on_step(this, StepRecord(step, 0.1, {"loss": Unread()}, log=False))  # type: ignore[dict-item]


def test_numbers_are_short_and_round_no_share_to_none_or_all() -> None:
    assert [duration(s) for s in (0.42, 41, 192, 7500, 360000)] == [
        "0.4 s",
        "41 s",
        "3 min 12 s",
        "2 h 5 min",
        "4 d 4 h",
    ]
    assert [clock(s) for s in (41, 725, 7380)] == ["0:41", "12:05", "2:03:00"]
    assert [count(n) for n in (984, 9840, 984192, 1.24e9)] == ["984", "9,840", "984k", "1.24B"]
    assert [share(n, 10000) for n in (0, 4, 3300, 9996, 10000)] == ["0 %", "0.04 %", "33 %", "99.9 %", "100 %"]
