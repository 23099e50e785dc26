"""metrics.jsonl has valid JSON, one line per logged step, also after interruptions."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
import tunesmith_jsonl

from tests.contract.fakes import end, fake_run
from tunesmith import LogRecord, Run


def run(folder: Path, step: int = 0, main: bool = True) -> Run:
    return fake_run(folder / "out", step=step, main=main)


def record(step: int, loss: float = 1.0, **more: Any) -> LogRecord:
    return LogRecord(step, step / 10, {"loss": loss, "tokens": 8}, **more)


def strict(line: str) -> Any:
    """Parse a line like parsers that do not accept NaN and Infinity."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not valid JSON")

    return json.loads(line, parse_constant=refuse)


def written(folder: Path) -> list[Any]:
    return [strict(line) for line in (folder / "out/metrics.jsonl").read_text("utf-8").splitlines()]


def test_a_record_is_written_at_once(tmp_path: Path) -> None:
    this = run(tmp_path)
    tunesmith_jsonl.on_start(this)
    tunesmith_jsonl.write_log(this, record(1))
    assert written(tmp_path) == [{"step": 1, "epoch": 0.1, "loss": 1.0, "tokens": 8}]
    tunesmith_jsonl.write_log(this, LogRecord(3, 0.3, {}, {"eval_loss": 2.0}))
    assert written(tmp_path)[1:] == [{"step": 3, "epoch": 0.3, "eval_loss": 2.0}]
    assert tunesmith_jsonl.plugin.synchronous  # so that a step has its line before it has a checkpoint


def test_histograms_are_in_the_line_and_tables_in_a_file_of_their_own(tmp_path: Path) -> None:
    this = run(tmp_path)
    tunesmith_jsonl.on_start(this)
    assert not (tmp_path / "out/tables.jsonl").exists()
    rows = [{"prompt": "2 + 2", "reward": math.inf}]
    tunesmith_jsonl.write_log(this, record(1, histograms={"rewards": (1.0, math.nan)}, tables={"answers": rows}))
    tunesmith_jsonl.write_log(this, record(2, tables={"answers": rows}))
    assert written(tmp_path)[0]["histograms"] == {"rewards": [1.0, None]}
    tunesmith_jsonl.on_start(run(tmp_path, step=1))
    [line] = [strict(line) for line in (tmp_path / "out/tables.jsonl").read_text().splitlines()]
    assert line == {"step": 1, "table": "answers", "rows": [{"prompt": "2 + 2", "reward": None}]}


def test_a_table_with_a_file_of_its_own_is_not_repeated(tmp_path: Path) -> None:
    this = run(tmp_path)
    tunesmith_jsonl.on_start(this)
    (tmp_path / "out/samples.jsonl").write_text("")
    rows = [{"prompt": "2 + 2"}]
    tunesmith_jsonl.write_log(this, record(1, tables={"samples": rows, "answers": rows, "metrics": rows}))
    lines = (tmp_path / "out/tables.jsonl").read_text().splitlines()
    assert [strict(line)["table"] for line in lines] == ["answers", "metrics"]


@pytest.mark.parametrize("at_the_end", [False, True])
def test_lines_that_the_disk_refuses_are_written_later_and_in_order(
    at_the_end: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    this, path = run(tmp_path), tmp_path / "out/metrics.jsonl"
    tunesmith_jsonl.on_start(this)
    tunesmith_jsonl.write_log(this, record(1))
    opened = Path.open

    def full(self: Path, *arguments: Any, **options: Any) -> Any:
        with opened(self, "ab") as file:
            file.write(b'{"step": 2, "lo')  # half a line, before the disk was full
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", full)
        for step in (2, 3):
            with pytest.raises(OSError, match="No space"):
                tunesmith_jsonl.write_log(this, record(step))
    if at_the_end:
        end(this)
    else:
        tunesmith_jsonl.write_log(this, record(4))
    assert [line["step"] for line in written(tmp_path)] == ([1, 2, 3] if at_the_end else [1, 2, 3, 4])
    assert path.read_bytes().count(b"\n") == len(written(tmp_path))


def test_nothing_is_appended_to_the_file_of_an_earlier_run_that_could_not_be_rewound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(tmp_path)
    tunesmith_jsonl.on_start(first)
    tunesmith_jsonl.write_log(first, record(1, loss=5.0))
    second = run(tmp_path)

    def refused(*_: Any) -> None:
        raise OSError(30, "Read-only file system")

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", refused)
        for call in (lambda: tunesmith_jsonl.on_start(second), lambda: tunesmith_jsonl.write_log(second, record(1))):
            with pytest.raises(OSError, match="Read-only"):
                call()
    tunesmith_jsonl.write_log(second, record(2))
    assert [(line["step"], line["loss"]) for line in written(tmp_path)] == [(1, 1.0), (2, 1.0)]


def test_numbers_that_are_not_finite_become_null(tmp_path: Path) -> None:
    this = run(tmp_path)
    tunesmith_jsonl.on_start(this)
    tunesmith_jsonl.write_log(this, record(1, float("nan"), evaluation={"eval_loss": float("-inf")}))
    assert written(tmp_path)[0]["loss"] is None and written(tmp_path)[0]["eval_loss"] is None


@pytest.mark.parametrize("torn", [b'{"step": 4, "lo', b'{"step": 4, "text": "\xc3', b"4", b""])
def test_a_resumed_run_leaves_the_file_of_an_uninterrupted_one(tmp_path: Path, torn: bytes) -> None:
    this = run(tmp_path)
    tunesmith_jsonl.on_start(this)
    for step in range(1, 6):
        tunesmith_jsonl.write_log(this, record(step))
    path = tmp_path / "out/metrics.jsonl"
    uninterrupted = path.read_bytes()
    path.write_bytes(b"".join(uninterrupted.splitlines(keepends=True)[:3]) + torn)
    resumed = run(tmp_path, step=2)
    tunesmith_jsonl.on_start(resumed)
    for step in range(3, 6):
        tunesmith_jsonl.write_log(resumed, record(step))
    assert path.read_bytes() == uninterrupted
    assert bool(resumed.notes) == bool(torn)


def test_a_new_run_starts_a_new_file(tmp_path: Path) -> None:
    for _ in range(2):
        this = run(tmp_path)
        tunesmith_jsonl.on_start(this)
        tunesmith_jsonl.write_log(this, record(1))
    assert len(written(tmp_path)) == 1


def test_only_the_main_process_writes(tmp_path: Path) -> None:
    this = run(tmp_path, main=False)
    tunesmith_jsonl.on_start(this)
    end(this)
    assert not (tmp_path / "out").exists()


def test_a_run_killed_while_rewinding_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    this = run(tmp_path)
    tunesmith_jsonl.on_start(this)
    tunesmith_jsonl.write_log(this, record(1))
    before = (tmp_path / "out/metrics.jsonl").read_bytes()

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        tunesmith_jsonl.on_start(run(tmp_path, step=1))
    assert (tmp_path / "out/metrics.jsonl").read_bytes() == before
