"""SwanLab gets numbers, tables, the report and models, and a resumed run continues its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tunesmith_swanlab

from tests import tracked
from tests.contract.fakes import error_of, load
from tunesmith.testing import Setup
from tunesmith.testing.conformance import conformance

LIBRARY = pytest.importorskip("swanlab", reason="swanlab is not installed: pip install 'tunesmith[swanlab-sdk]'")
test_conformance = conformance({"swanlab": Setup(keys={"use_swanlab": True, "swanlab_mode": "offline"})})
CONFIG = "base_model: nobody/nothing\n"


KEYS: dict[str, Any] = {"swanlab_project": "demo", "swanlab_mode": "offline"}


@pytest.mark.slow
def test_everything_is_recorded_and_a_killed_and_resumed_run_has_each_step_once(tmp_path: Path) -> None:
    tracked.track(tunesmith_swanlab, tmp_path, range(1, 6), "killed", **KEYS)
    tracked.track(tunesmith_swanlab, tmp_path, range(4, 8), resume_at=3, swanlab_log_model=True, **KEYS)
    recorded = tracked.read_swanlab(tmp_path)
    assert len(recorded.ids) == 1
    assert recorded.train == [(step, 10.0 - step) for step in range(1, 8)]
    assert recorded.eval == [(step, 1 / step) for step in (2, 4, 6)] and recorded.tables == [2, 4, 6]
    assert recorded.config["learning_rate"] == 0.01 and recorded.config["versions"]["torch"] == "2.13.0"
    assert {"report.html", "config.json"} <= recorded.files and len(recorded.ends) == 2


@pytest.mark.slow
def test_tables_can_be_switched_off(tmp_path: Path) -> None:
    tracked.track(tunesmith_swanlab, tmp_path, range(1, 4), swanlab_log_completions=False, **KEYS)
    recorded = tracked.read_swanlab(tmp_path)
    assert len(recorded.train) == 3 and recorded.tables == []


def test_tables_of_completions_wait_for_their_interval_and_keep_the_newest_rows(tmp_path: Path) -> None:
    from collections import deque  # noqa: F401
    from types import SimpleNamespace

    from tunesmith_swanlab.service import SwanLabService

    sent: list[Any] = []

    class Table:
        def add(self, columns: list[str], rows: list[Any]) -> None:
            self.rows = rows

    service = SwanLabService()
    service.rows, service.options = {}, {"tables": True, "interval": 4, "buffer": 3}
    service.swanlab = SimpleNamespace(echarts=SimpleNamespace(Table=Table))
    service.run = SimpleNamespace(log=lambda values, step: sent.append((step, values["completions"].rows))
                                  if "completions" in values else None)  # fmt: skip
    for step in range(1, 6):
        service.log(step, {}, {"tables": {"completions": [{"text": f"t{step}"}]}})
    assert sent == [(4, [[2, "t2"], [3, "t3"], [4, "t4"]])]
    service.send_tables()
    assert sent[1] == (5, [[5, "t5"]])


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("swanlab_mode: offlin", "swanlab_mode"),
        ("swanlab_lark_secret: abc", "has no effect without swanlab_lark_webhook_url"),
        (
            "swanlab_log_completions: false\nswanlab_completion_max_buffer: 3",
            "has no effect with swanlab_log_completions",
        ),
    ],
)
def test_a_key_that_has_no_effect_is_an_error(lines: str, message: str, tmp_path: Path) -> None:
    from tunesmith.api import start

    def check() -> None:
        config, _ = load(
            tmp_path, f"{CONFIG}datasets: [{{path: a/b, type: completion}}]\nswanlab_project: d\n{lines}\n"
        )
        start(config)

    assert message in str(error_of(check))


def test_a_secret_in_the_config_is_masked_and_a_warning(tmp_path: Path) -> None:
    config, _ = load(tmp_path, f"{CONFIG}swanlab_project: demo\nswanlab_api_key: abc123\n")
    assert config.resolved()["swanlab_api_key"] == "***"
