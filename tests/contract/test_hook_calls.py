"""Hooks are called as chains, wrappers, by key and as defaults, and their times are recorded."""

from __future__ import annotations

import functools
import itertools
import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.contract.fakes import BASE, DATA, answer, error_of, hooks_of, load, local_plugin, plugin_of
from tunesmith.api import start
from tunesmith.errors import DataError
from tunesmith.plugins import discovery, implementation
from tunesmith.plugins.discovery import LoadedPlugin
from tunesmith.plugins.manager import Hooks
from tunesmith.plugins.models import ModelSpec
from tunesmith.plugins.plugin import hookimpl


def adder(name: str, hook: str, value: str, what: str) -> LoadedPlugin:
    """Build a plugin that appends a value to the model, or to the sources."""
    if what == "model":

        @hookimpl
        def patch_model(model: str) -> str:
            return model + value

        return plugin_of(name, patch_model)

    @hookimpl
    def filter_rows(sources: list[str]) -> list[str]:
        return [*sources, value]

    return plugin_of(name, filter_rows)


@pytest.mark.parametrize("order", list(itertools.permutations("abc")), ids="".join)
def test_chain_is_folded_in_call_order(order: tuple[str, ...]) -> None:
    hooks = hooks_of(*(adder(name, "patch_model", name, "model") for name in order))
    assert hooks.patch_model(None, "policy", "model:") == "model:" + "".join(order)  # type: ignore[arg-type,comparison-overlap]
    hooks = hooks_of(*(adder(name, "filter_rows", name, "sources") for name in order))
    assert hooks.filter_rows(None, ["x"]) == ["x", *order]  # type: ignore[arg-type,list-item,comparison-overlap]


def test_chain_without_members_returns_its_input() -> None:
    assert hooks_of().filter_rows(None, []) == []  # type: ignore[arg-type]


@pytest.mark.parametrize("hook", ["patch_model", "filter_rows"])
def test_none_from_a_member_of_a_chain_is_an_error(hook: str) -> None:
    forgetful = answer(hook, "forgetful")
    setattr(forgetful.module, hook, hookimpl(lambda: None))
    hooks = hooks_of(forgetful)
    error = error_of(getattr(hooks, hook), None, *["x"] * (2 if hook == "patch_model" else 1))
    assert error.exit_code == 6
    assert "forgetful" in str(error) and hook in str(error)
    assert Path(__file__).name in str(error.problems[0].where)


def test_wrappers_change_the_answer_and_the_first_is_outermost() -> None:
    log = []

    def wrapper(name: str, wraps: int) -> LoadedPlugin:
        @hookimpl(wrapper=True)
        def compute_loss(out: str) -> Any:
            log.append(f"{name} in {out}")
            terms = yield
            log.append(f"{name} out")
            return {**terms, name: len(terms) * wraps}

        return plugin_of(name, compute_loss)

    hooks = hooks_of(wrapper("outer", 10), wrapper("inner", 100))
    assert hooks.compute_loss(None, None, "out", None) == {"loss": 1.0, "inner": 100, "outer": 20}  # type: ignore[arg-type]
    assert log == ["outer in out", "inner in out", "inner out", "outer out"]
    assert [(c.plugin, c.wrapper) for c in hooks.calls("compute_loss")] == [
        ("outer", True), ("inner", True), ("base", False),
    ]  # fmt: skip
    assert hooks.counts["outer", "compute_loss"] == 1


def test_wrapper_receives_the_error_of_the_wrapped_hook() -> None:
    log = []

    @hookimpl(wrapper=True)
    def build_optimizer() -> Any:
        try:
            return (yield)
        except DataError as error:
            log.append(str(error))
            return "another"
        finally:
            log.append("tidied")

    @hookimpl(specname="build_optimizer")
    def failing() -> None:
        raise DataError("no rows")

    failing.__name__ = "build_optimizer"
    rest = [("base", "build_optimizer")]
    hooks = hooks_of(plugin_of("wrapping", build_optimizer), plugin_of("failing", failing), replaced=rest)
    assert hooks.build_optimizer(None, None) == "another"  # type: ignore[arg-type,comparison-overlap]
    assert log == ["error[data]: no rows", "tidied"]


def test_wrapper_that_yields_twice_is_an_error() -> None:
    @hookimpl(wrapper=True)
    def build_optimizer() -> Any:
        yield
        yield

    error = error_of(hooks_of(plugin_of("twice", build_optimizer)).build_optimizer, None, None)
    assert error.exit_code == 6
    assert "twice (dist-twice 4.5.6)" in str(error) and "yields twice" in str(error)


# keys and defaults

STRATEGY = """
plugin = Plugin(strategies={{"text": ("{word}",)}})
@hookimpl
def build_dataset(spec, rows):
    return ["{word}", spec.settings.type, *rows]
"""


def test_build_dataset_calls_only_the_strategy_of_the_type(tmp_path: Path) -> None:
    for word in ("one", "two"):
        local_plugin(tmp_path, word, STRATEGY.format(word=word))
    text = "plugins: [./one.py, ./two.py]\ndatasets: [{path: x, type: two}, {path: x, type: one}]"
    config, hooks = load(tmp_path, BASE + text)
    answers = [list(hooks.build_dataset(None, spec, ["row"])) for spec in config.datasets]  # type: ignore[arg-type,list-item]
    assert answers == [["two", "two", "row"], ["one", "one", "row"]]  # type: ignore[comparison-overlap]


def test_strategy_that_declares_no_type_is_an_error(tmp_path: Path) -> None:
    """No entry could ever select such a strategy."""
    local_plugin(tmp_path, "one", "plugin = Plugin()\n@hookimpl\ndef build_dataset(rows): ...\n")
    error = error_of(load, tmp_path, BASE + "plugins: [./one.py]")
    assert (error.exit_code, error.problems[0].code) == (6, "hook-arity")
    assert "plugin one answers build_dataset but declares no keys for it" in str(error)


DEFAULTS = {row["hook"]: row["plugin"] for row in discovery.defaults() if row["replaced_by"]}
DECLARED = {"compute_loss": "method=Method(rows=('text',))", "load_model": "models=('folder', 'hub')"}


@pytest.mark.parametrize("hook", DEFAULTS)
def test_default_is_replaced_by_a_plugin_that_implements_its_hook(hook: str, tmp_path: Path) -> None:
    local_plugin(tmp_path, "mine", f"plugin = Plugin({DECLARED.get(hook, '')})\n@hookimpl\ndef {hook}(run): ...\n")
    before = [c.plugin for c in load(tmp_path, BASE)[1].calls(hook) if not c.wrapper]
    _, hooks = load(tmp_path, BASE + "plugins: [./mine.py]")
    assert before == [DEFAULTS[hook]]
    if hook == "load_model":  # keyed
        assert hooks.loader_of(ModelSpec("policy", "nobody/nothing")) == "mine"
    else:
        assert [c.plugin for c in hooks.calls(hook) if not c.wrapper] == ["mine"]
    assert all(
        [c.plugin for c in hooks.calls(other) if not c.wrapper] == [plugin]
        for other, plugin in DEFAULTS.items()
        if other != hook
    )


def test_loggers_stay_active_next_to_another_on_step(tmp_path: Path) -> None:
    local_plugin(tmp_path, "mine", "plugin = Plugin()\n@hookimpl\ndef on_step(run): ...\n")
    _, hooks = load(tmp_path, BASE + "plugins: [./mine.py]")
    assert "mine" in {c.plugin for c in hooks.calls("on_step")}
    assert {"console", "diagnosis", "jsonl", "report"} == {c.plugin for c in hooks.calls("write_log")}


def test_times_and_counts_are_kept_by_plugin_and_hook() -> None:
    @hookimpl
    def on_step() -> None:
        time.sleep(0.02)

    @hookimpl(wrapper=True)
    def compute_loss() -> Any:
        time.sleep(0.02)
        terms = yield
        return terms

    @hookimpl
    def on_end() -> None: ...

    hooks = hooks_of(plugin_of("slow", on_step, compute_loss), plugin_of("fast", on_end))
    for _ in range(3):
        hooks.on_step(None, None, None)  # type: ignore[arg-type]
    hooks.on_end(None, None)  # type: ignore[arg-type]
    hooks.compute_loss(None, None, None, None)  # type: ignore[arg-type]
    assert dict(hooks.counts) == {
        ("slow", "on_step"): 3, ("fast", "on_end"): 1, ("slow", "compute_loss"): 1, ("base", "compute_loss"): 1,
    }  # fmt: skip
    assert 0.06 <= hooks.seconds["slow", "on_step"] < 1
    assert hooks.seconds["slow", "compute_loss"] >= 0.02 > hooks.seconds["base", "compute_loss"]


def test_current_is_the_plugin_of_the_running_hook_or_the_core() -> None:
    seen: list[str] = []
    hooks: Hooks

    @hookimpl
    def build_optimizer() -> str:
        seen.append(hooks.current())
        return "optimizer"

    @hookimpl(wrapper=True, specname="build_optimizer")
    def wrapped() -> Any:
        seen.append(hooks.current())
        answer = yield
        seen.append(hooks.current())
        return answer

    wrapped.__name__ = "build_optimizer"
    rest = [("base", "build_optimizer")]
    hooks = hooks_of(plugin_of("outer", wrapped), plugin_of("inner", build_optimizer), replaced=rest)
    hooks.build_optimizer(None, None)  # type: ignore[arg-type]
    assert seen == ["outer", "inner", "outer"]
    assert hooks.current() == "the core"


def test_location_is_relative_to_the_working_folder_and_ignores_decorators(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def through(function: Any) -> Any:
        @functools.wraps(function)
        def call() -> Any:
            return function()

        return call

    @through
    def decorated() -> None: ...

    line = decorated.__wrapped__.__code__.co_firstlineno
    monkeypatch.chdir(Path(__file__).parent)
    assert implementation.location(decorated) == f"{Path(__file__).name}:{line}"
    monkeypatch.chdir(tmp_path)
    assert implementation.location(decorated) == f"{__file__}:{line}"


def test_hooks_show_their_times_in_the_last_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tunesmith.cli.show import hook_rows

    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "run.json").write_text(json.dumps({"hook_seconds": {"sft.compute_loss": 1.5}}))
    rows = {row["hook"]: row for row in hook_rows(start(load(tmp_path, BASE + DATA)[0]))}
    assert [(c["plugin"], c["seconds"]) for c in rows["compute_loss"]["calls"]] == [("sft", 1.5)]
    assert {c["seconds"] for c in rows["on_step"]["calls"]} == {None}
