"""A hook that fails: who is named, what is muted, what is told together."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.contract.fakes import BASE, DATA, line_of, load, loaded, local, managed, recorder, refusal, write
from tunesmith.api import start
from tunesmith.config.load import load_config
from tunesmith.errors import ConfigError, ModelError, SafetyError
from tunesmith.plugins.plugin import hookimpl

FAILING = """
import functools, json
plugin = Plugin(best_effort={best_effort})

def through(function):
    @functools.wraps(function)
    def call(*args):
        return function(*args)
    return call

@hookimpl
def configure(run):
    json.loads("[")  # the fault

@hookimpl
@through
def on_start(run):
    raise KeyError("decorated")  # decorated fault

@hookimpl(wrapper=True)
def build_optimizer(run):
    raise ValueError("early")  # early fault
    yield

@hookimpl(wrapper=True)
def build_scheduler(run):
    yield
    raise ValueError("late")  # late fault
"""
FAULTS = {  # hook -> text of its line, number of arguments, words
    "configure": ("the fault", 1, "JSONDecodeError: Expecting value"),
    "on_start": ("decorated fault", 2, "KeyError: 'decorated'"),
    "build_optimizer": ("early fault", 2, "ValueError: early"),
    "build_scheduler": ("late fault", 3, "ValueError: late"),
}


@pytest.mark.parametrize("hook", FAULTS)
def test_exception_in_a_hook_names_plugin_distribution_version_and_its_own_line(hook: str, tmp_path: Path) -> None:
    text, number, words = FAULTS[hook]
    file = local(tmp_path, "failing", FAILING.format(best_effort=False))
    _, made = load(tmp_path, BASE + "plugins: [./failing.py]")
    bottom = SimpleNamespace(core=SimpleNamespace(optimizer="adamw", learning_rate=1.0, lr_scheduler="constant"))
    for name in ("build_optimizer", "build_scheduler"):  # the answers below the wrappers need no torch
        for answer in made.hooks[name].answers:
            answer.function = lambda *_: "built"
    error = refusal(getattr(made, hook), *[bottom] * number)
    [problem] = error.problems
    assert (error.exit_code, problem.code) == (6, "hook-failed")
    assert problem.message.startswith(f"plugin failing (./failing.py local) failed in {hook}: {words}")
    assert problem.where == line_of(file, text)
    assert error.__cause__ is not None


def test_error_that_a_plugin_raises_on_purpose_keeps_its_exit_code() -> None:
    @hookimpl
    def configure() -> None:
        raise ModelError("no such folder", where="run.yaml:1:1")

    error = refusal(managed(loaded("a", configure)).configure, None)
    assert (error.exit_code, str(error)) == (4, "run.yaml:1:1: error[model]: no such folder")


def test_exception_in_a_lazy_strategy_names_the_plugin(tmp_path: Path) -> None:
    source = """
    plugin = Plugin(strategies={"text": ("lazy",)})
    @hookimpl
    def build_dataset(rows):
        for row in rows:
            yield row["text"]  # the fault
    """
    file = local(tmp_path, "lazy", source)
    config, made = load(tmp_path, BASE + "plugins: [./lazy.py]\ndatasets: [{path: x, type: lazy}]")
    examples = iter(made.build_dataset(None, config.datasets[0], [{"text": 1}, {"txet": 2}]))  # type: ignore[arg-type,list-item]
    assert next(examples) == 1  # type: ignore[comparison-overlap]
    error = refusal(next, examples)
    assert error.exit_code == 6
    assert "lazy (./lazy.py local) failed in build_dataset: KeyError: 'text'" in str(error)
    assert error.problems[0].where == line_of(file, "the fault")


def test_best_effort_plugin_is_muted_loudly_and_not_called_again(capsys: pytest.CaptureFixture[str]) -> None:
    calls = []

    @hookimpl
    def on_step(record: int) -> None:
        calls.append(record)
        raise OSError("disk full")

    @hookimpl
    def on_end() -> None:
        calls.append("end")

    log: list[str] = []
    made = managed(loaded("logger", on_step, on_end, best_effort=True), recorder("next", log))
    for step in (1, 2):
        made.on_step(None, None, step)  # type: ignore[arg-type]
    made.on_end(None, None)  # type: ignore[arg-type]
    assert (calls, log) == ([1], ["next"])
    assert made.muted == {"logger": "on_step: OSError: disk full"}
    told = capsys.readouterr().err
    assert told.count("logger (dist-logger 4.5.6) failed in on_step and is muted: OSError: disk full") == 1
    assert Path(__file__).name in told


@pytest.mark.parametrize("name", ["validate", "inspect"])
def test_best_effort_plugin_is_not_muted_before_the_run(name: str) -> None:
    """What it finds there is the user's to mend."""

    @hookimpl
    def implementation() -> None:
        raise ConfigError("no such folder")

    implementation.__name__ = name
    made = managed(loaded("logger", implementation, best_effort=True))
    assert [e.exit_code for e in getattr(made, name)(None)] == [2]
    assert made.muted == {}


CHECKS = """
from tunesmith import ConfigError, DataError, SafetyError
plugin = Plugin()
@hookimpl
def validate(run):
    raise {validate}
@hookimpl
def inspect(run):
    raise {inspect}
"""


def test_problems_of_all_checks_of_all_plugins_are_told_together(tmp_path: Path) -> None:
    local(tmp_path, "one", CHECKS.format(validate="ConfigError('a')", inspect="ConfigError('b')"))
    local(
        tmp_path, "two", CHECKS.format(validate="ConfigError(['c'])", inspect="DataError('d')").replace("['c']", "'c'")
    )
    path = write(tmp_path, BASE + DATA + "plugins: [./one.py, ./two.py]\neval_steps: 3")
    error = refusal(start, load_config(path))
    assert [p.message for p in error.problems] == ["eval_steps needs held-out data", "a", "c", "b", "d"]
    assert error.exit_code == 2


def test_refusal_for_safety_outranks_other_problems(tmp_path: Path) -> None:
    local(tmp_path, "one", CHECKS.format(validate="ConfigError('a')", inspect="SafetyError('b')"))
    error = refusal(start, load_config(write(tmp_path, BASE + DATA + "plugins: [./one.py]")))
    assert (error.exit_code, len(error.problems)) == (SafetyError.exit_code, 2)
