"""Trackio gets numbers, tables and the report, and a resumed run continues its own."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
import tunesmith_trackio

from tests import tracked
from tunesmith.testing import Setup
from tunesmith.testing.conformance import conformance

LIBRARY = pytest.importorskip("trackio", reason="trackio is not installed: pip install 'tunesmith[trackio-sdk]'")
test_conformance = conformance({"trackio": Setup(keys={"use_trackio": True})})


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "store"))
    return tmp_path / "store"


@pytest.mark.slow
def test_everything_is_recorded_and_a_killed_and_resumed_run_has_each_step_once(tmp_path: Path, store: Path) -> None:
    keys = {"trackio_project_name": "demo", "trackio_run_name": "first"}
    tracked.track(tunesmith_trackio, tmp_path / "out", range(1, 6), "killed", **keys)
    tracked.track(tunesmith_trackio, tmp_path / "out", range(4, 8), resume_at=3, **keys)
    recorded = tracked.read_trackio(store)
    assert recorded.ids == {"first"}
    assert recorded.train == [(step, 10.0 - step) for step in range(1, 8)]
    assert recorded.eval == [(step, 1 / step) for step in (2, 4, 6)] and recorded.tables == [2, 4, 6]
    assert recorded.config["learning_rate"] == 0.01 and recorded.config["versions"]["torch"] == "2.13.0"
    with sqlite3.connect(store / "demo.db") as database:
        assert database.execute("select name, type from artifacts").fetchall() == [("report-first", "report")]
        assert database.execute("select count(distinct run_id) from metrics").fetchone() == (1,)
