"""Comet gets numbers, tables, the report and models, and a resumed run continues its own."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import tunesmith_comet

from tests import tracked
from tests.contract.fakes import error_of, load
from tunesmith.testing import Setup
from tunesmith.testing.conformance import conformance

LIBRARY = pytest.importorskip("comet_ml", reason="comet_ml is not installed: pip install 'tunesmith[comet-sdk]'")
test_conformance = conformance({"comet": Setup(keys={"use_comet": True, "comet_online": False})})
CONFIG = "base_model: nobody/nothing\n"


@pytest.mark.slow
def test_everything_is_recorded_and_a_killed_and_resumed_run_has_each_step_once(tmp_path: Path) -> None:
    keys = {"comet_project_name": "demo", "comet_online": False}
    tracked.track(tunesmith_comet, tmp_path, range(1, 6), "killed", **keys)
    tracked.track(tunesmith_comet, tmp_path, range(4, 8), resume_at=3, **keys)
    recorded = tracked.read_comet(tmp_path)
    assert len(recorded.ids) == 1
    assert sorted(recorded.train) == [(step, 10.0 - step) for step in range(1, 8)]
    assert sorted(recorded.eval) == [(step, 1 / step) for step in (2, 4, 6)]
    assert sorted(recorded.tables) == [2, 2, 4, 4, 6, 6]  # two rows each
    assert float(recorded.config["learning_rate"]) == 0.01 and float(recorded.config["trl|beta"]) == 0.1
    assert "report.html" in recorded.files


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("comet_mode: gett", "comet_mode"),
        ("comet_mode: get", "comet_experiment_key does not say which"),
        ("comet_experiment_key: short", "comet_experiment_key"),
        ("comet_experiment_config: {log_cod: true}", "unknown argument of ExperimentConfig: log_cod"),
    ],
)
def test_a_value_that_makes_no_sense_is_an_error(lines: str, message: str, tmp_path: Path) -> None:
    from tunesmith.api import start

    def check() -> None:
        config, _ = load(tmp_path, f"{CONFIG}datasets: [{{path: a/b, type: completion}}]\nuse_comet: true\n{lines}\n")
        start(config)

    assert message in str(error_of(check))


def test_the_known_arguments_are_those_of_the_library() -> None:
    known = inspect.signature(LIBRARY.ExperimentConfig).parameters
    assert sorted(known) == sorted(tunesmith_comet.OPTIONS)
