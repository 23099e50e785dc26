"""The page is written at the right times, by one process, and never makes a run fail."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tunesmith_report
from tunesmith_report import page, writer

from tunesmith import StepRecord


def run(folder: Path, main: bool = True, report: bool = True) -> Any:
    hooks = SimpleNamespace(
        muted={}, seconds={("hf", "load_model"): 1.5}, counts={("hf", "load_model"): 1},
        by_name={"report": "report (tunesmith-report 0.1.0)"},
        calls=lambda name: [SimpleNamespace(plugin=p, wrapper=p == "bonus") for p in ("bonus", "sft")],
    )  # fmt: skip
    document = SimpleNamespace(name="run.yaml", values={"seed": 7}, where=lambda path: "run.yaml:3:1")
    return SimpleNamespace(
        output_dir=folder, hooks=hooks, config=SimpleNamespace(document=document), closing=[], notes={"a": "note"},
        world=SimpleNamespace(main=main), settings=lambda model: model(report=report), step=3, total_steps=9,
        stopped=None,
    )  # fmt: skip


class Clock:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    fake = Clock()
    monkeypatch.setattr(writer.time, "monotonic", fake)
    return fake


def end(this: Any) -> None:
    while this.closing:
        this.closing.pop()()


def test_a_complete_page_is_written_at_the_end_of_a_run(tmp_path: Path) -> None:
    this = run(tmp_path)
    tunesmith_report.on_start(this)
    assert not list(tmp_path.iterdir())
    end(this)
    text = (tmp_path / "report.html").read_text("utf-8")
    assert text.endswith("</html>") and "note" in text and "sft" in text
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"] and not tunesmith_report._writers


def test_the_page_of_a_long_run_is_refreshed_after_logged_steps_and_evaluations(tmp_path: Path, clock: Clock) -> None:
    this, path = run(tmp_path), tmp_path / "report.html"
    tunesmith_report.on_start(this)

    def is_written(seconds: float, **record: Any) -> bool:
        clock.now += seconds
        path.unlink(missing_ok=True)
        tunesmith_report.on_step(this, StepRecord(3, 0.1, **record))
        return path.exists()

    assert not is_written(29)
    assert not is_written(2, log=False)
    assert is_written(0)
    assert not is_written(20)
    assert is_written(11, log=False, evaluation={"eval_loss": 1.0})
    end(this)
    assert path.exists()


def test_a_page_that_takes_long_to_render_is_written_less_often(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(*args: Any) -> str:
        clock.now += 2.0
        return "page"

    monkeypatch.setattr(page, "render", slow)
    slow_writer = writer.Writer(run(tmp_path))
    slow_writer.write(over=False)
    assert slow_writer.due - clock.now == pytest.approx(2.0 / writer.SHARE)


def test_a_page_that_cannot_be_written_is_a_warning_and_not_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    this = run(tmp_path / "gone")
    tunesmith_report.on_start(this)
    end(this)
    monkeypatch.setattr(page, "render", lambda *args: 1 / 0)
    tunesmith_report.on_start(this)
    end(this)
    first, second = capsys.readouterr().err.splitlines()
    start = "warning: plugin report (tunesmith-report 0.1.0) can't write report.html: "
    assert first.startswith(f"{start}FileNotFoundError") and second.startswith(f"{start}ZeroDivisionError")


def test_a_failed_write_keeps_the_earlier_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "report.html").write_text("earlier")

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer.os, "replace", full)
    writer.Writer(run(tmp_path)).close()
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("report.html", "earlier")]


@pytest.mark.parametrize("options", [{"main": False}, {"report": False}], ids=str)
def test_other_processes_and_runs_without_a_report_write_nothing(tmp_path: Path, clock: Clock, options: Any) -> None:
    this = run(tmp_path, **options)
    tunesmith_report.on_start(this)
    clock.now += 100
    tunesmith_report.on_step(this, StepRecord(3, 0.1))
    assert not this.closing and not list(tmp_path.iterdir())


def test_the_plugin_module_imports_no_template_engine() -> None:
    import subprocess
    import sys

    code = (
        "import sys, tunesmith_report; print(sorted({'jinja2', 'torch', 'tunesmith_report.page'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
