"""The page is written at the right times, by one process, and never makes a run fail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tunesmith_report
from tunesmith_report import page, writer

from tests.contract.fakes import end, fake_run, plugin_of
from tunesmith import Run, hookimpl
from tunesmith.plugins.discovery import LoadedPlugin


@hookimpl(wrapper=True)
def compute_loss() -> Any:
    return (yield)


def run(folder: Path, main: bool = True, report: bool = True) -> Run:
    loaded = LoadedPlugin("report", "tunesmith-report", "0.1.0", tunesmith_report, tunesmith_report.plugin)
    this = fake_run(folder, loaded, plugin_of("bonus", compute_loss), step=3, total_steps=9, main=main, report=report)
    this.notes["a"] = "note"
    this.hooks.seconds["hf", "load_model"] = 1.5
    return this


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


def test_a_complete_page_is_written_at_the_end_of_a_run(tmp_path: Path) -> None:
    this = run(tmp_path)
    this.hooks.on_start(this, None)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())
    end(this)
    text = (tmp_path / "report.html").read_text("utf-8")
    assert text.endswith("</html>") and "note" in text and "base" in text
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_the_page_of_a_long_run_is_refreshed_from_time_to_time(tmp_path: Path, clock: Clock) -> None:
    this, path = run(tmp_path), tmp_path / "report.html"
    tunesmith_report.on_start(this)

    def is_written(seconds: float) -> bool:
        clock.now += seconds
        path.unlink(missing_ok=True)
        tunesmith_report.write_log(this)
        return path.exists()

    assert not is_written(29)
    assert is_written(1)
    assert not is_written(20)
    assert is_written(11)
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
    this.hooks.on_start(this, None)  # type: ignore[arg-type]
    end(this)
    monkeypatch.setattr(page, "render", lambda *args: 1 / 0)
    this.hooks.on_start(this, None)  # type: ignore[arg-type]
    end(this)
    first, second = capsys.readouterr().err.splitlines()
    start = ": warning: plugin report (tunesmith-report 0.1.0) failed in close() of Writer: "
    assert f"{start}FileNotFoundError" in first and f"{start}ZeroDivisionError" in second


def test_a_failed_write_keeps_the_earlier_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "report.html").write_text("earlier")

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer.os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        writer.Writer(run(tmp_path)).close()
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("report.html", "earlier")]


@pytest.mark.parametrize("options", [{"main": False}, {"report": False}], ids=str)
def test_other_processes_and_runs_without_a_report_write_nothing(tmp_path: Path, clock: Clock, options: Any) -> None:
    this = run(tmp_path, **options)
    tunesmith_report.on_start(this)
    clock.now += 100
    if not options.get("report", True):
        tunesmith_report.write_log(this)
    end(this)
    assert not list(tmp_path.iterdir())


def test_the_plugin_module_imports_no_template_engine() -> None:
    import subprocess
    import sys

    code = (
        "import sys, tunesmith_report; print(sorted({'jinja2', 'torch', 'tunesmith_report.page'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
