"""A failing hook is reported with its plugin, best-effort plugins are muted, and problems are reported together."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.contract.fakes import BASE, DATA, error_of, hooks_of, line_of, load, local_plugin, plugin_of, recorder, write
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
FAULTS = {  # hook -> text of its failing line, number of arguments, part of the message
    "configure": ("the fault", 1, "JSONDecodeError: Expecting value"),
    "on_start": ("decorated fault", 2, "KeyError: 'decorated'"),
    "build_optimizer": ("early fault", 2, "ValueError: early"),
    "build_scheduler": ("late fault", 3, "ValueError: late"),
}


@pytest.mark.parametrize("hook", FAULTS)
def test_exception_in_a_hook_names_plugin_distribution_version_and_line(hook: str, tmp_path: Path) -> None:
    text, number, words = FAULTS[hook]
    file = local_plugin(tmp_path, "failing", FAILING.format(best_effort=False))
    _, hooks = load(tmp_path, BASE + "plugins: [./failing.py]")
    fake_run = SimpleNamespace(core=SimpleNamespace(optimizer="adamw", learning_rate=1.0, lr_scheduler="constant"))
    for name in ("build_optimizer", "build_scheduler"):  # the wrapped implementations would need torch
        for answer in hooks.hooks[name].answers:
            answer.function = lambda *_: "built"
    error = error_of(getattr(hooks, hook), *[fake_run] * number)
    [problem] = error.problems
    assert (error.exit_code, problem.code) == (6, "hook-failed")
    assert problem.message.startswith(f"plugin failing (./failing.py local) failed in {hook}: {words}")
    assert problem.where == line_of(file, text)
    assert error.__cause__ is not None


def test_tunesmith_error_of_a_plugin_keeps_its_exit_code() -> None:
    @hookimpl
    def configure() -> None:
        raise ModelError("no such folder", where="run.yaml:1:1")

    error = error_of(hooks_of(plugin_of("a", configure)).configure, None)
    assert (error.exit_code, str(error)) == (4, "run.yaml:1:1: error[model]: no such folder")


def test_exception_in_a_lazy_strategy_names_the_plugin(tmp_path: Path) -> None:
    source = """
    plugin = Plugin(strategies={"text": ("lazy",)})
    @hookimpl
    def build_dataset(rows):
        for row in rows:
            yield row["text"]  # the fault
    """
    file = local_plugin(tmp_path, "lazy", source)
    config, hooks = load(tmp_path, BASE + "plugins: [./lazy.py]\ndatasets: [{path: x, type: lazy}]")
    examples = iter(hooks.build_dataset(None, config.datasets[0], [{"text": 1}, {"txet": 2}]))  # type: ignore[arg-type,list-item]
    assert next(examples) == 1  # type: ignore[comparison-overlap]
    error = error_of(next, examples)
    assert error.exit_code == 6
    assert "lazy (./lazy.py local) failed in build_dataset: KeyError: 'text'" in str(error)
    assert error.problems[0].where == line_of(file, "the fault")


def test_best_effort_plugin_is_muted_after_five_failures_in_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    calls = []

    @hookimpl
    def on_step(record: int) -> None:
        calls.append(record)
        raise OSError("disk full")

    @hookimpl
    def on_end() -> None:
        calls.append("end")

    log: list[str] = []
    hooks = hooks_of(plugin_of("logger", on_step, on_end, best_effort=True), recorder("next", log))
    for step in range(1, 8):
        hooks.on_step(None, None, step)  # type: ignore[arg-type]
    hooks.on_end(None, None)  # type: ignore[arg-type]
    assert (calls, log) == ([1, 2, 3, 4, 5], ["next"])
    assert hooks.muted == {"logger": "on_step: OSError: disk full"}
    first, last = capsys.readouterr().err.splitlines()
    name = "plugin logger (dist-logger 4.5.6) failed in on_step"
    assert f"warning: {name}: OSError: disk full; after 5 failures in a row it is muted" in first
    assert f"warning: {name} 5 times in a row and is muted: OSError: disk full" in last
    assert Path(__file__).name in first and Path(__file__).name in last


def test_a_success_resets_the_count_of_failures_of_its_hook_only(capsys: pytest.CaptureFixture[str]) -> None:
    @hookimpl
    def on_step(record: int) -> None:
        if record % 5:
            raise OSError("disk full")

    @hookimpl
    def on_end() -> None: ...

    hooks = hooks_of(plugin_of("logger", on_step, on_end, best_effort=True))
    for step in range(1, 20):
        hooks.on_step(None, None, step)  # type: ignore[arg-type]
        hooks.on_end(None, None)  # type: ignore[arg-type]
    assert hooks.muted == {} and len(capsys.readouterr().err.splitlines()) == 1  # the first, then counted
    for step in (21, 22, 23, 24, 26):
        hooks.on_step(None, None, step)  # type: ignore[arg-type]
        hooks.on_end(None, None)  # type: ignore[arg-type]
    assert set(hooks.muted) == {"logger"}


@pytest.mark.parametrize("name", ["validate", "inspect"])
def test_best_effort_plugin_is_not_muted_before_the_run(name: str) -> None:
    """The user must fix problems that validate and inspect report."""

    @hookimpl
    def implementation() -> None:
        raise ConfigError("no such folder")

    implementation.__name__ = name
    hooks = hooks_of(plugin_of("logger", implementation, best_effort=True))
    assert [e.exit_code for e in getattr(hooks, name)(None)] == [2]
    assert hooks.muted == {}


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


def test_problems_of_all_plugins_are_reported_together(tmp_path: Path) -> None:
    local_plugin(tmp_path, "one", CHECKS.format(validate="ConfigError('a')", inspect="ConfigError('b')"))
    local_plugin(
        tmp_path, "two", CHECKS.format(validate="ConfigError(['c'])", inspect="DataError('d')").replace("['c']", "'c'")
    )
    path = write(tmp_path, BASE + DATA + "plugins: [./one.py, ./two.py]\nload_best_model_at_end: true")
    error = error_of(start, load_config(path))
    assert [p.message for p in error.problems] == ["load_best_model_at_end needs held-out data", "a", "c", "b", "d"]
    assert error.exit_code == 2


def test_safety_error_outranks_other_problems(tmp_path: Path) -> None:
    local_plugin(tmp_path, "one", CHECKS.format(validate="ConfigError('a')", inspect="SafetyError('b')"))
    error = error_of(start, load_config(write(tmp_path, BASE + DATA + "plugins: [./one.py]")))
    assert (error.exit_code, len(error.problems)) == (SafetyError.exit_code, 2)
