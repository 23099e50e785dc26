"""sweep.json is the state of a sweep: it is compared with the file, and settled with what trials left behind."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from tunesmith_sweep.page import render
from tunesmith_sweep.processes import reason
from tunesmith_sweep.results import outcome, table, write_results
from tunesmith_sweep.spec import Spec, read_spec
from tunesmith_sweep.state import State, merged, read_state, settle, unfinished
from tunesmith_sweep.trial import FAILED, FINISHED, INTERRUPTED, PENDING, PRUNED, RUNNING, Trial

from tunesmith import ConfigError, EnvironmentProblem


def state_of(folder: Path, values: list[Any], **changes: Any) -> State:
    trials = [Trial(number, {"learning_rate": value}) for number, value in enumerate(values, 1)]
    keys: dict[str, Any] = {
        "space": {"learning_rate": "[1, 2]"},
        "metric": "eval_loss",
        "greater": False,
        "method": "grid",
        "seed": 0,
        "base": {"a": "1"},
    }
    return State(folder, **(keys | {"config": "run.yaml", "trials": trials, "planned": len(trials)} | changes))


def spec_of(folder: Path) -> Spec:
    (folder / "sweep.yaml").write_text("learning_rate: [1, 2]\n")
    return read_spec(folder / "sweep.yaml")


def leave(folder: Path, name: str, status: str | None, values: list[float], **outline: Any) -> None:
    """Write what a run leaves in the folder of a trial."""
    (folder / name).mkdir()
    lines = [json.dumps({"step": step, "loss": 1.0, "eval_loss": value}) for step, value in enumerate(values, 1)]
    (folder / name / "metrics.jsonl").write_text("\n".join([*lines, '{"step": 9, "eval']))  # being written
    if status:
        (folder / name / "run.json").write_text(json.dumps({"status": status, "total_steps": 3, "outline": outline}))


def test_a_state_is_read_as_it_was_written(tmp_path: Path) -> None:
    state = state_of(tmp_path, [1.0, None, "x"])
    state.trials[0].values = [(1, 2.0)]
    state.write()
    assert read_state(tmp_path) == state
    (tmp_path / "sweep.json").write_text('{"trials": [{}]}')
    with pytest.raises(EnvironmentProblem, match="is damaged"):
        read_state(tmp_path)


def test_trials_without_a_process_are_settled_by_their_folders(tmp_path: Path) -> None:
    state = state_of(tmp_path, [1, 2, 3, 4, 5])
    for trial in state.trials[:4]:
        trial.state = RUNNING
    leave(tmp_path, state.trials[0].name, "done", [5.0, 4.0, 4.5])
    leave(tmp_path, state.trials[1].name, "running", [5.0])
    leave(tmp_path, state.trials[3].name, "done", [5.0, 4.0, 4.5], model_step=2)
    for trial in state.trials:
        settle(state, trial)
    assert [t.state for t in state.trials] == [FINISHED, INTERRUPTED, INTERRUPTED, FINISHED, PENDING]
    assert [(t.step, t.value) for t in state.trials] == [(3, 4.5), (None, None), (None, None), (2, 4.0), (None, None)]


def test_a_run_without_the_metric_has_failed(tmp_path: Path) -> None:
    state = state_of(tmp_path, [1], metric="eval_accuracy")
    leave(tmp_path, state.trials[0].name, "done", [1.0])
    settle(state, state.trials[0])
    assert state.trials[0].state == FAILED and "has eval_loss, loss" in str(state.trials[0].reason)


def test_failed_trials_start_again_only_if_asked_for(tmp_path: Path) -> None:
    state = state_of(tmp_path, [1, 2, 3, 4])
    for trial, name in zip(state.trials, (FINISHED, FAILED, PRUNED, INTERRUPTED), strict=True):
        trial.state = name
    assert [t.number for t in unfinished(state.trials, False)] == [4]
    assert [t.number for t in unfinished(state.trials, True)] == [2, 4]


def test_a_sweep_can_be_extended(tmp_path: Path) -> None:
    old = state_of(tmp_path, [1, 2])
    old.trials[0].state = FINISHED
    state = merged(spec_of(tmp_path), old, state_of(tmp_path, [1, 2, 3]))
    assert [(t.number, t.state) for t in state.trials] == [(1, FINISHED), (2, PENDING), (3, PENDING)]


@pytest.mark.parametrize(
    ("values", "changes", "message"),
    [
        ([1, 2], {"base": {"a": "2", "b": "1"}}, "the config changed since the sweep in .* began: a, b"),
        ([1, 3], {}, "trial 0002-learning-rate-2 of the sweep in .* would now be learning_rate 3"),
        ([1], {}, "has 2 trials, and the file now has 1"),
        ([1, 2], {"metric": "loss"}, "began with another metric"),
        ([1, 2], {"greater": True}, "began with another direction"),
        ([1, 2], {"seed": 1}, "began with another seed"),
        ([], {"space": {"learning_rate": "[1, 3]"}}, "began with other values of learning_rate"),
    ],
)
def test_another_sweep_in_the_folder_is_an_error(
    tmp_path: Path, values: list[Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        merged(spec_of(tmp_path), state_of(tmp_path, [1, 2]), state_of(tmp_path, values, **changes))
    assert caught.value.problems[0].code == "sweep-changed"


def finished(folder: Path) -> State:
    state = state_of(folder, [0.1, 0.2, 0.3])
    for trial, value in zip(state.trials, (2.0, 1.0, None), strict=True):
        trial.state, trial.value, trial.step = (FINISHED, value, 3) if value else (FAILED, None, None)
        leave(folder, trial.name, "done", [3.0, 2.5, value or 2.0])
    state.trials[2].params["note"] = "</script><b>=1+1"
    state.trials[2].reason = "error[disk]: <i>full</i>"
    return state


def test_results_have_the_best_first(tmp_path: Path) -> None:
    state = finished(tmp_path)
    assert [trial["number"] for trial in outcome(state)["trials"]] == [2, 1, 3]
    lines = table(state).splitlines()
    assert lines[0].split() == ["trial", "state", "eval_loss", "learning_rate", "note", "step", "time"]
    assert lines[1].split()[:4] == ["0002", "finished", "1", "0.2"]
    assert "error[disk]" in lines[4] and lines[5].startswith("2 finished, 1 failed")
    state.greater = True
    assert [trial["number"] for trial in outcome(state)["trials"]] == [1, 2, 3]


def test_files_of_results_agree(tmp_path: Path) -> None:
    state = finished(tmp_path)
    state.trials[2].params["note"] = "=1+1"
    write_results(state)
    rows = list(csv.DictReader((tmp_path / "results.csv").open()))
    assert [(row["number"], row["eval_loss"]) for row in rows] == [("2", "1.0"), ("1", "2.0"), ("3", "")]
    assert rows[2]["note"] == "'=1+1"  # a spreadsheet does not compute it
    assert json.loads((tmp_path / "results.json").read_text()) == outcome(state)


def test_the_page_needs_no_network_and_shows_texts_as_texts(tmp_path: Path) -> None:
    page = render(finished(tmp_path))
    assert "default-src 'none'" in page and "http://" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in page and "<b>=1" not in page and page.count("</script>") == 2
    assert "<i>full" not in page and "\\u003c/script>\\u003cb>=1+1" in page
    data = json.loads(page.partition('<script id="data" type="application/json">')[2].partition("</script>")[0])
    assert data["trials"][0]["curve"] == [[1, 3.0], [2, 2.5], [3, 2.0]]


def test_the_reason_of_a_failure_is_the_last_error(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text("step 1\na: error[disk]: full\n  help: make room\ndocs: x\n")
    assert reason(log, 5) == "a: error[disk]: full"
    assert reason(log, -9) == "ended by SIGKILL"
    assert reason(tmp_path / "missing", 3) == "exit code 3"
