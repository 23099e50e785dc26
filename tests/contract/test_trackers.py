"""A tracker gets every record once; one that fails or hangs delays no step, and the end of a run only briefly."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.contract.fakes import end, error_of, fake_run
from tunesmith import EnvironmentProblem, LogRecord, Run, tracking
from tunesmith.tracking import Tracker, check_library

SERVICE = """
import json, os, sys, time
from tunesmith.tracking_service import Service

class Fake(Service):
    name = "fake"

    def act(self, kind, **values):
        with open(self.folder / "service.txt", "a") as file:
            file.write(json.dumps([kind, values]) + "\\n")
        print("a line that a library prints", flush=True)
        for action in self.options.get(kind, ()):
            if action == "hang":
                time.sleep(60)
            elif action == "exit":
                os._exit(7)
            elif action == "fail" or (action == "fail once" and values.get("step") == 1):
                raise ConnectionError("no route to https://me:password@host\\nsecond line")

    def open(self):
        self.reply(later="type sync", about="run 1")
        self.act("open", known=self.known, facts=self.facts())
        self.keep(id=self.known.get("id", "new"))

    def log(self, step, scalars, record):
        self.act("log", step=step, scalars=scalars, tables=record["tables"], histograms=record["histograms"])

    def page(self, path):
        self.act("page", text=path.read_text())

    def model(self, name, files):
        self.act("model", name=name, files=[file.name for file in files])

    def end(self, status):
        self.act("end", status=status)

Fake().serve()
"""


class FakeTracker(Tracker):
    name, service = "fake", "fake_service"

    def settings(self, run: Run) -> dict[str, Any]:
        return dict(run.notes.pop("options", {}))


@pytest.fixture(autouse=True)
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write the module of the service, and shorten what the tests wait for."""
    (tmp_path / "fake_service.py").write_text(SERVICE, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setattr(tracking, "LAST", 5.0)


def start(folder: Path, resume: str | None = None, step: int = 0, **options: Any) -> tuple[Run, FakeTracker]:
    run = fake_run(folder, resume=resume, step=step)
    run.notes["options"] = options
    write(folder, "running")
    return run, run.owned(FakeTracker)


def write(folder: Path, status: str) -> None:
    record = {"status": status, "config": {"seed": 7}, "versions": {"torch": "2"}, "plugins": []}
    (folder / "run.json").write_text(json.dumps(record), encoding="utf-8")


def finish(run: Run, status: str = "done") -> None:
    write(run.output_dir, status)
    (run.output_dir / "report.html").write_text("page", encoding="utf-8")
    end(run)


def calls(folder: Path, kind: str | None = None) -> list[Any]:
    """Return the calls of the service: (kind, values), or the values of one kind."""
    lines = [json.loads(line) for line in (folder / "service.txt").read_text("utf-8").splitlines()]
    return lines if kind is None else [values for name, values in lines if name == kind]


def steps(folder: Path) -> list[int]:
    return [call["step"] for call in calls(folder, "log")]


def warnings(text: str) -> list[str]:
    return [line for line in text.splitlines() if "warning" in line]


def is_gone(tracker: FakeTracker) -> bool:
    return tracker._process.poll() is not None and not Path(f"/proc/{tracker._process.pid}").exists()


def eventually(condition: Callable[[], bool], seconds: float = 20) -> bool:
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.02)
    return condition()


def test_records_the_page_and_the_status_arrive_in_order(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run, tracker = start(tmp_path)
    table = {"samples": [{"prompt": "a", "completion": "b"}]}
    assert eventually(lambda: tracker.about is not None)
    tracker.write(LogRecord(1, 0.5, {"loss": 2.0}, None, {"rewards": (1.0, 2.0)}))
    tracker.write(LogRecord(2, 1.0, {}, {"eval_loss": 1.5}, {}, table))
    finish(run)
    assert [kind for kind, _ in calls(tmp_path)] == ["open", "log", "log", "page", "end"]
    first, second = calls(tmp_path, "log")
    assert first["scalars"] == {"train/epoch": 0.5, "train/loss": 2.0} and first["histograms"] == {"rewards": [1, 2]}
    assert second == {"step": 2, "scalars": {"eval/loss": 1.5}, "tables": table, "histograms": {}}
    [opened] = calls(tmp_path, "open")
    assert opened["known"] == {} and opened["facts"]["config"] == {"seed": 7}
    assert opened["facts"]["versions"]["torch"] == "2" and "python" in opened["facts"]["versions"]
    assert calls(tmp_path, "page") == [{"text": "page"}] and calls(tmp_path, "end") == [{"status": "done"}]
    assert json.loads((tmp_path / "tracker-fake.json").read_text()) == {"id": "new", "step": 2}
    assert run.notes["tracker fake"] == "run 1" and is_gone(tracker)
    assert capfd.readouterr() == ("", "")  # neither warnings nor what the library prints


def test_a_resumed_run_continues_its_own_and_sends_no_step_twice(tmp_path: Path) -> None:
    run, tracker = start(tmp_path)
    for step in (1, 2, 3):
        tracker.write(LogRecord(step, 0.1, {"loss": 2.0}))
    assert tracker._process.stdin is not None
    tracker._queue.drain()
    tracker._process.stdin.close()  # what a kill of the run does
    assert tracker._process.wait(10) == 0
    assert calls(tmp_path, "end") == [{"status": "running"}]
    run, tracker = start(tmp_path, resume="auto", step=1)
    for step in (2, 3, 4):
        tracker.write(LogRecord(step, 0.1, {"loss": 2.0}))
    finish(run)
    assert steps(tmp_path) == [1, 2, 3, 4] and calls(tmp_path, "open")[1]["known"] == {"id": "new", "step": 3}
    run, tracker = start(tmp_path)
    tracker.write(LogRecord(1, 0.1, {"loss": 2.0}))
    finish(run)
    assert steps(tmp_path)[-1] == 1 and calls(tmp_path, "open")[2]["known"] == {}


def test_a_service_that_hangs_delays_no_step_and_is_muted_with_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, tracker = start(tmp_path, log=["hang"])
    assert tracker._ready.wait(20)
    monkeypatch.setattr(tracking, "ANSWER", 0.5)
    started, slowest, step = time.monotonic(), 0.0, 0
    while tracker.muted is None and time.monotonic() - started < 10:
        before, step = time.monotonic(), step + 1
        tracker.write(LogRecord(step, 0.1, {"loss": 2.0}))
        slowest = max(slowest, time.monotonic() - before)
        time.sleep(0.05)
    assert tracker.muted == "no answer for 0.5 seconds" and slowest < 2 and is_gone(tracker)
    before = time.monotonic()
    tracker.write(LogRecord(step + 1, 0.1, {"loss": 2.0}))
    finish(run)
    assert time.monotonic() - before < 5
    assert run.notes["tracker fake"] == "muted: no answer for 0.5 seconds; type sync"
    [warning] = warnings(capsys.readouterr().err)
    assert warning == ("warning: fake: no answer for 0.5 seconds; it is muted, and training is not affected; type sync")


@pytest.mark.parametrize(
    "where", ["log", *(pytest.param(name, marks=pytest.mark.slow) for name in ("open", "page", "end"))]
)
def test_the_end_of_a_run_waits_for_a_service_that_hangs_only_as_long_as_its_budget(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, tracker = start(tmp_path, **{where: ["hang"]})
    tracker.write(LogRecord(1, 0.1, {"loss": 2.0}))
    assert tracker._ready.wait(20)
    monkeypatch.setattr(tracking, "LAST", 1.0)
    before = time.monotonic()
    finish(run)
    assert 1.0 <= time.monotonic() - before < 8 and is_gone(tracker)
    [warning] = warnings(capsys.readouterr().err)
    assert "the end of the run was not sent within 1 seconds" in warning and "type sync" in warning


def test_a_run_that_can_not_be_opened_is_muted_at_once_and_its_message_has_no_secret(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, tracker = start(tmp_path, open=["fail"])
    tracker.write(LogRecord(1, 0.1, {"loss": 2.0}))
    finish(run)
    [warning] = warnings(capsys.readouterr().err)
    assert warning.startswith("warning: fake: open: ConnectionError: no route to https://***@host; it is muted")
    assert [kind for kind, _ in calls(tmp_path)] == ["open"]


def test_single_failures_of_records_are_forgiven_and_five_in_a_row_are_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, tracker = start(tmp_path, log=["fail once"])
    for step in range(1, 8):
        tracker.write(LogRecord(step, 0.1, {"loss": 2.0}))
    finish(run)
    assert calls(tmp_path, "end") and tracker.muted is None
    (tmp_path / "service.txt").unlink()
    run, tracker = start(tmp_path, log=["fail"])
    for step in range(1, 12):
        tracker.write(LogRecord(step, 0.1, {"loss": 2.0}))
    finish(run)
    [warning] = warnings(capsys.readouterr().err)
    assert "log: ConnectionError: no route to" in warning and not calls(tmp_path, "end")


def test_a_process_that_ends_is_reported_with_its_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, tracker = start(tmp_path, log=["exit"])
    tracker.write(LogRecord(1, 0.1, {"loss": 2.0}))
    finish(run)
    [warning] = warnings(capsys.readouterr().err)
    assert "its process ended with exit code 7" in warning


@pytest.mark.parametrize("which", ["end", "checkpoint"])
@pytest.mark.parametrize("status", ["done", "interrupted"])
def test_models_are_uploaded_once_and_only_if_they_are_complete(which: str, status: str, tmp_path: Path) -> None:
    checkpoint(tmp_path / "checkpoint-1", True)
    run, tracker = start(tmp_path, model=which, resume="auto", step=1)
    assert tracker._ready.wait(20)  # checkpoint-1 is that of an earlier run
    checkpoint(tmp_path / "checkpoint-3", True)
    checkpoint(tmp_path / "checkpoint-5", False)
    for step in (4, 5):
        tracker.write(LogRecord(step, 0.1, {"loss": 2.0}))
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "crash.txt").write_text("")
    finish(run, status)
    models = {call["name"]: call["files"] for call in calls(tmp_path, "model")}
    expected = {"checkpoint-3": ["model.safetensors"]} if which == "checkpoint" else {}
    assert models == expected | ({"model": ["config.json"]} if status == "done" else {})
    assert len(calls(tmp_path, "model")) == len(models) and calls(tmp_path)[-1] == ["end", {"status": status}]


def checkpoint(folder: Path, exported: bool) -> None:
    folder.mkdir()
    (folder / "model.safetensors").write_text("")
    (folder / "optimizer.safetensors.json").write_text("")
    (folder / "manifest.json").write_text(json.dumps({"exported": exported}))


def test_the_process_is_in_a_session_of_its_own(tmp_path: Path) -> None:
    """So Ctrl-C of the terminal, which its process group gets, does not reach the library."""
    run, tracker = start(tmp_path)
    assert os.getsid(tracker._process.pid) == tracker._process.pid != os.getsid(0)
    finish(run)


def test_a_missing_library_is_an_error_with_the_line_to_type(tmp_path: Path) -> None:
    run = fake_run(tmp_path)
    run.config.document.values["use_fake"] = True
    run.config.place = lambda key: f"run.yaml: {key}"  # type: ignore[method-assign,assignment,return-value]
    error = error_of(check_library, run, "no_such_library", "pip install it", ("fake_project", "use_fake"))
    [problem] = error.problems
    assert isinstance(error, EnvironmentProblem) and (problem.code, problem.help) == ("package", "pip install it")
    assert problem.where == "run.yaml: use_fake" and problem.message == "no_such_library is not installed"
    check_library(run, "json", "", ("use_fake",))
