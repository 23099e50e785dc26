"""Weights & Biases gets numbers, tables, histograms, the report and models, and a resumed run continues its own."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import tunesmith_wandb

from tests import tracked
from tests.contract.fakes import error_of, load
from tunesmith.testing import Setup
from tunesmith.testing.conformance import conformance

LIBRARY = pytest.importorskip("wandb", reason="wandb is not installed: pip install 'tunesmith[wandb-sdk]'")
test_conformance = conformance({"wandb": Setup(keys={"use_wandb": True, "wandb_mode": "offline"})})
CONFIG = "base_model: nobody/nothing\n"


KEYS = {"wandb_project": "demo", "wandb_mode": "offline"}


@pytest.mark.slow
def test_everything_is_recorded_and_a_killed_and_resumed_run_has_each_step_once(tmp_path: Path) -> None:
    tracked.track(tunesmith_wandb, tmp_path, range(1, 6), "killed", **KEYS)
    tracked.track(tunesmith_wandb, tmp_path, range(4, 8), resume_at=3, wandb_log_model="end", **KEYS)
    recorded = tracked.read_wandb(tmp_path)
    assert len(recorded.ids) == 1
    assert recorded.train == [(step, 10.0 - step) for step in range(1, 8)]
    assert recorded.eval == [(step, 1 / step) for step in (2, 4, 6)] and recorded.tables == [2, 4, 6]
    assert recorded.config["learning_rate"] == 0.01 and recorded.config["trl"] == {"beta": 0.1}
    assert recorded.config["tunesmith"]["versions"]["torch"] == "2.13.0"
    assert {"report/report.html", "model/config.json", "run_table/samples.table.json"} <= recorded.files
    assert recorded.ends == [1, 0]


@pytest.mark.slow
def test_a_service_that_can_not_be_reached_is_replaced_by_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"BASE_URL": "http://127.0.0.1:1", "API_KEY": tracked.CANARY, "INIT_TIMEOUT": "3"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    run = tracked.track(tunesmith_wandb, tmp_path, range(1, 4), wandb_project="demo")
    recorded, printed = tracked.read_wandb(tmp_path), capsys.readouterr().err
    assert [step for step, _ in recorded.train] == [1, 2, 3]
    assert printed.count("warning") == 1 and "could not start the run online" in printed
    assert f"it is recorded offline: wandb sync {tmp_path}/wandb/offline-run-" in printed
    assert tracked.CANARY not in printed + str(run.notes)


def test_gradients_and_parameters_are_counted_at_the_first_step(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from tunesmith_wandb.watch import Watch

    from tests.contract.fakes import fake_run

    model = torch.nn.Linear(3, 2)
    model.bias.requires_grad = False
    run = fake_run(tmp_path, wandb_watch="all")
    watch = run.owned(Watch)
    watch.watch(SimpleNamespace(unwrapped=model))  # type: ignore[arg-type]
    (model(torch.ones(1, 3)).sum() * 2).backward()
    run.step = 1
    bins = watch.take()
    assert set(bins) == {"gradients/weight", "parameters/weight"}
    counts, edges = bins["gradients/weight"]
    assert sum(counts) == 6 and len(edges) == len(counts) + 1 and edges[0] < 2 < edges[-1]
    model(torch.ones(1, 3)).sum().backward()
    run.step = 2
    assert watch.take() == {}
    watch.close()
    run.step = 99
    model(torch.ones(1, 3)).sum().backward()
    run.step = 100
    assert set(watch.take()) == {"parameters/weight"}


@pytest.mark.parametrize("line", ["wandb_mode: offine", "wandb_watch: everything", "wandb_log_model: always"])
def test_a_value_that_the_service_does_not_have_is_an_error(line: str, tmp_path: Path) -> None:
    [problem] = error_of(load, tmp_path, f"{CONFIG}wandb_project: demo\n{line}\n").problems
    assert problem.code == "wrong-type" and line.partition(":")[0] in problem.message


@pytest.mark.parametrize("keys", [{"use_wandb": False}, {"wandb_mode": "disabled"}])
def test_a_project_can_be_switched_off(keys: dict[str, object], tmp_path: Path) -> None:
    from tests.contract.fakes import fake_run

    run = fake_run(tmp_path, wandb_project="demo", **keys)
    tunesmith_wandb.on_start(run, None)  # type: ignore[arg-type]
    assert not tunesmith_wandb.is_on(run) and not run._owned.objects and not list(tunesmith_wandb.diagnose(run))
