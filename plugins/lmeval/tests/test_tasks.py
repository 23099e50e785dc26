"""Task files run no code that the YAML does not name, and metrics of tasks take part in training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from plugins.lmeval.tests.test_equality import write_tasks
from tests import tiny
from tunesmith import ConfigError, SafetyError, TunesmithError
from tunesmith.testing import Setup
from tunesmith.testing.conformance import conformance

FUNCTION = "def change(docs):\n    open({marker!r}, 'w').close()\n    return docs\n"


def tasks_in(folder: Path) -> list[str]:
    return write_tasks(folder, number=6)[:1]


def with_function(folder: Path, name: str = "utils.change") -> tuple[str, Path]:
    """Write a task that calls a function; return its path, and the file that the function creates."""
    (path,) = tasks_in(folder)
    text = Path(path).read_text("utf-8") + f"process_docs: !function {name}\n"
    Path(path).write_text(text, encoding="utf-8")
    marker = folder / "ran"
    (folder / "utils.py").write_text(FUNCTION.format(marker=str(marker)), encoding="utf-8")
    return path, marker


def config(folder: Path, **keys: Any) -> Path:
    tasks = keys.pop("lm_eval_tasks", None) or tasks_in(folder)
    return tiny.sft_config(folder, **{"lm_eval_tasks": tasks, "max_steps": 2, **keys})


WORDS = str(Path(__file__).with_name("words.yaml"))
test_conformance = conformance({"lmeval": Setup(keys={"lm_eval_tasks": [WORDS], "lm_eval_limit": 2})})


def test_a_function_in_a_file_that_is_not_named_does_not_run(tmp_path: Path) -> None:
    task, marker = with_function(tmp_path)
    with pytest.raises(SafetyError) as error:
        tiny.start(config(tmp_path, lm_eval_tasks=[task]))
    (problem,) = error.value.problems
    assert problem.code == "task-code" and "pick.yaml calls utils.change" in problem.message
    assert problem.help == f"read the file, then name it: lm_eval_code: [{tmp_path / 'utils.py'}]"
    included = tmp_path / "outer.yaml"
    included.write_text(yaml.safe_dump({"task": "outer", "include": "pick.yaml"}))
    with pytest.raises(SafetyError, match=r"utils\.change"):
        tiny.start(config(tmp_path, lm_eval_tasks=[str(included)]))
    assert not marker.exists()


def test_a_module_is_never_imported_by_its_name(tmp_path: Path) -> None:
    task, _ = with_function(tmp_path, "os.system")
    with pytest.raises(SafetyError, match=r"calls os\.system, which is not in a file next to it"):
        tiny.start(config(tmp_path, lm_eval_tasks=[task], lm_eval_code=[str(tmp_path / "utils.py")]))


@pytest.mark.slow
def test_a_function_in_a_named_file_runs(tmp_path: Path) -> None:
    task, marker = with_function(tmp_path)
    tiny.train(config(tmp_path, lm_eval_tasks=[task], lm_eval_code=[str(tmp_path / "utils.py")]))
    assert marker.exists()


@pytest.mark.slow
def test_code_of_a_task_in_a_folder_is_checked_when_the_task_is_used(tmp_path: Path) -> None:
    _, marker = with_function(tmp_path)
    keys = {"lm_eval_include_path": str(tmp_path)}
    with pytest.raises(SafetyError, match=r"utils\.change"):
        tiny.train(config(tmp_path, lm_eval_tasks=["pick"], **keys))
    assert not marker.exists()
    with pytest.raises(ConfigError, match="unknown task: pikc") as error:
        tiny.train(config(tmp_path, lm_eval_tasks=["pikc"], **keys))
    assert error.value.problems[0].help == "did you mean 'pick'?"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"lm_eval_tasks": ["missing.yaml"]}, "missing.yaml: no such file"),
        ({"lm_eval_include_path": "missing"}, "missing: no such folder"),
        ({"lm_eval_code": ["missing.py"]}, "missing.py: no such file"),
        ({"metric_for_best_model": "eval_pick/acc"}, "names a task, but tasks are measured with lm_eval_every: end"),
    ],
)
def test_mistakes_are_errors_before_training(keys: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(TunesmithError, match=message):
        tiny.start(config(tmp_path, **keys))


@pytest.mark.slow
def test_a_task_chooses_the_best_checkpoint(tmp_path: Path) -> None:
    keys = {"lm_eval_every": "evaluation", "eval_steps": 1, "load_best_model_at_end": True, "greater_is_better": True}
    result = tiny.train(config(tmp_path, metric_for_best_model="eval_pick/acc", **keys))
    values = [line["eval_pick/acc"] for line in tiny.metrics(tmp_path / "out") if "eval_pick/acc" in line]
    assert len(values) == 2 and result.policy.run.best == (1 + values.index(max(values)), max(values))
    with pytest.raises(ConfigError, match="eval_pick/ac is not measured") as error:
        tiny.train(config(tmp_path, metric_for_best_model="eval_pick/ac", **keys), f"output_dir={tmp_path}/other")
    assert error.value.problems[0].help == "did you mean 'eval_pick/acc'?"
    assert not tiny.metrics(tmp_path / "other")


@pytest.mark.slow
def test_the_final_model_is_measured_once_and_recorded(tmp_path: Path) -> None:
    tiny.train(config(tmp_path, val_set_size=4, eval_steps=1, lm_eval_limit=3))
    assert not any("eval_pick/acc" in line for line in tiny.metrics(tmp_path / "out"))
    record = json.loads((tmp_path / "out/run.json").read_text("utf-8"))
    (entry,) = record["evaluations"]
    assert set(entry["metrics"]) == {"eval_pick/acc", "eval_pick/acc_norm"} and "pick/acc" in record["notes"]["lm-eval"]


@pytest.mark.slow
def test_two_processes_measure_the_same(tmp_path: Path) -> None:
    tasks = write_tasks(tmp_path, number=7)
    keys = {"lm_eval_tasks": tasks, "lm_eval_every": "evaluation", "learning_rate": 1e-9, "max_steps": 1}
    tiny.train(config(tmp_path, **keys))
    tiny.torchrun(2, config(tmp_path, name="two.yaml", output_dir=str(tmp_path / "two"), **keys))
    one, two = (
        {k: v for line in tiny.metrics(tmp_path / name) for k, v in line.items() if k.startswith("eval_")}
        for name in ("out", "two")
    )
    assert len(one) == 6 and one == pytest.approx(two, rel=1e-4)
