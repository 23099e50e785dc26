"""MLflow gets numbers, tables, the report and models, and a resumed run continues its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import tunesmith_mlflow

from tests import tracked
from tunesmith.testing import Setup
from tunesmith.testing.conformance import conformance

LIBRARY = pytest.importorskip("mlflow", reason="mlflow is not installed: pip install 'tunesmith[mlflow-sdk]'")
test_conformance = conformance({"mlflow": Setup(keys={"use_mlflow": True})})


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # artifacts of a sqlite store are in ./mlartifacts or ./mlruns
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/default.db")


@pytest.mark.slow
def test_everything_is_recorded_and_a_killed_and_resumed_run_has_each_step_once(tmp_path: Path) -> None:
    keys = {"mlflow_experiment_name": "demo", "mlflow_tracking_uri": f"sqlite:///{tmp_path}/ml.db"}
    tracked.track(tunesmith_mlflow, tmp_path / "out", range(1, 6), "killed", **keys)
    assert tracked.read_mlflow(keys["mlflow_tracking_uri"]).ends == ["KILLED"]
    (tmp_path / "out/tracker-mlflow.json").write_text(  # a kill between the request and this note
        (tmp_path / "out/tracker-mlflow.json").read_text().replace('"step": 5', '"step": 4')
    )
    tracked.track(tunesmith_mlflow, tmp_path / "out", range(4, 8), resume_at=3, hf_mlflow_log_artifacts=True, **keys)
    recorded = tracked.read_mlflow(keys["mlflow_tracking_uri"])
    assert len(recorded.ids) == 1
    assert recorded.train == [(step, 10.0 - step) for step in range(1, 8)]
    assert recorded.eval == [(step, 1 / step) for step in (2, 4, 6)] and recorded.tables == [2, 2, 4, 4, 6, 6]
    assert recorded.config["learning_rate"] == "0.01" and recorded.config["trl.beta"] == "0.1"
    assert recorded.config["version.torch"] == "2.13.0" and recorded.config["service_api_key"] == "***"
    assert {"report.html", "samples.json", "model/config.json"} <= recorded.files
    assert recorded.ends == ["FINISHED"]


def test_nested_groups_become_parameters_with_dots() -> None:
    from tunesmith_mlflow.service import flat

    values = {"a": {"b": 1, "c:d": [1, 2]}, "e": {}, "f": None}
    assert dict(flat(values)) == {"a.b": 1, "a.c_d": [1, 2], "e": {}, "f": None}
