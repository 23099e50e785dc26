"""Calling hooks: chains, wrappers, keys, defaults that stand back, times."""

from __future__ import annotations

import functools
import itertools
import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.contract.fakes import BASE, DATA, answer, load, loaded, local, managed, refusal
from tunesmith.api import start
from tunesmith.errors import DataError
from tunesmith.plugins import discovery, dispatch
from tunesmith.plugins.discovery import LoadedPlugin
from tunesmith.plugins.manager import Hooks
from tunesmith.plugins.plugin import hookimpl


def adder(name: str, hook: str, value: str, what: str) -> LoadedPlugin:
    if what == "model":

        @hookimpl
        def patch_model(model: str) -> str:
            return model + value

        return loaded(name, patch_model)

    @hookimpl
    def expand(examples: list[str]) -> list[str]:
        return [*examples, value]

    return loaded(name, expand)


@pytest.mark.parametrize("order", list(itertools.permutations("abc")), ids="".join)
def test_chain_is_folded_in_call_order(order: tuple[str, ...]) -> None:
    made = managed(*(adder(name, "patch_model", name, "model") for name in order))
    assert made.patch_model(None, "model:") == "model:" + "".join(order)  # type: ignore[arg-type,comparison-overlap]
    made = managed(*(adder(name, "expand", name, "examples") for name in order))
    assert made.expand(None, None, ["x"]) == ["x", *order]  # type: ignore[arg-type,list-item,comparison-overlap]


def test_chain_without_members_gives_back_what_it_got() -> None:
    assert managed().expand(None, None, []) == []  # type: ignore[arg-type]


@pytest.mark.parametrize("hook", ["patch_model", "expand"])
def test_nothing_from_a_member_of_a_chain_is_an_error(hook: str) -> None:
    forgetful = answer(hook, "forgetful")
    setattr(forgetful.module, hook, hookimpl(lambda: None))
    made = managed(forgetful)
    error = refusal(getattr(made, hook), None, *["x"] * (1 if hook == "patch_model" else 2))
    assert error.exit_code == 6
    assert "forgetful" in str(error) and hook in str(error)
    assert Path(__file__).name in str(error.problems[0].where)


def test_wrappers_see_and_change_the_answer_the_first_outermost() -> None:
    log = []

    def wrapper(name: str, wraps: int) -> LoadedPlugin:
        @hookimpl(wrapper=True)
        def compute_loss(out: str) -> Any:
            log.append(f"{name} in {out}")
            terms = yield
            log.append(f"{name} out")
            return {**terms, name: len(terms) * wraps}

        return loaded(name, compute_loss)

    made = managed(wrapper("outer", 10), wrapper("inner", 100))
    assert made.compute_loss(None, None, "out", None) == {"loss": 1.0, "inner": 100, "outer": 20}  # type: ignore[arg-type]
    assert log == ["outer in out", "inner in out", "inner out", "outer out"]
    assert [(c.plugin, c.wrapper) for c in made.calls("compute_loss")] == [
        ("outer", True), ("inner", True), ("base", False),
    ]  # fmt: skip
    assert made.counts["outer", "compute_loss"] == 1


def test_wrapper_sees_the_error_of_what_it_wraps() -> None:
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
    made = managed(loaded("wrapping", build_optimizer), loaded("failing", failing), replaced=rest)
    assert made.build_optimizer(None, None) == "another"  # type: ignore[arg-type,comparison-overlap]
    assert log == ["error[data]: no rows", "tidied"]


def test_wrapper_that_yields_twice_is_an_error() -> None:
    @hookimpl(wrapper=True)
    def build_optimizer() -> Any:
        yield
        yield

    error = refusal(managed(loaded("twice", build_optimizer)).build_optimizer, None, None)
    assert error.exit_code == 6
    assert "twice (dist-twice 4.5.6)" in str(error) and "yields twice" in str(error)


# keys, defaults, looking

STRATEGY = """
plugin = Plugin(strategies={{"text": ("{word}",)}})
@hookimpl
def build_dataset(spec, rows):
    return ["{word}", spec.settings.type, *rows]
"""


def test_build_dataset_asks_the_one_strategy_of_the_type(tmp_path: Path) -> None:
    for word in ("one", "two"):
        local(tmp_path, word, STRATEGY.format(word=word))
    text = "plugins: [./one.py, ./two.py]\ndatasets: [{path: x, type: two}, {path: x, type: one}]"
    config, made = load(tmp_path, BASE + text)
    answers = [made.build_dataset(None, spec, ["row"]) for spec in config.datasets]  # type: ignore[arg-type,list-item]
    assert answers == [["two", "two", "row"], ["one", "one", "row"]]  # type: ignore[comparison-overlap]


def test_strategy_that_declares_no_type_is_an_error(tmp_path: Path) -> None:
    """It would be asked for no entry at all."""
    local(tmp_path, "one", "plugin = Plugin()\n@hookimpl\ndef build_dataset(rows): ...\n")
    error = refusal(load, tmp_path, BASE + "plugins: [./one.py]")
    assert (error.exit_code, error.problems[0].code) == (6, "hook-arity")
    assert "plugin one answers build_dataset but declares no keys for it" in str(error)


DEFAULTS = {row["hook"]: row["plugin"] for row in discovery.defaults() if row["replaced_by"]}


@pytest.mark.parametrize("hook", DEFAULTS)
def test_default_stands_back_when_another_plugin_answers_its_hook(hook: str, tmp_path: Path) -> None:
    method = "method=Method(rows=('text',))" if hook == "compute_loss" else ""
    local(tmp_path, "mine", f"plugin = Plugin({method})\n@hookimpl\ndef {hook}(run): ...\n")
    before = [c.plugin for c in load(tmp_path, BASE)[1].calls(hook) if not c.wrapper]
    _, made = load(tmp_path, BASE + "plugins: [./mine.py]")
    assert before == [DEFAULTS[hook]]
    assert [c.plugin for c in made.calls(hook) if not c.wrapper] == ["mine"]
    assert all(
        [c.plugin for c in made.calls(other) if not c.wrapper] == [plugin]
        for other, plugin in DEFAULTS.items()
        if other != hook
    )


def test_loggers_stay_when_another_plugin_watches_steps(tmp_path: Path) -> None:
    local(tmp_path, "mine", "plugin = Plugin()\n@hookimpl\ndef on_step(run): ...\n")
    _, made = load(tmp_path, BASE + "plugins: [./mine.py]")
    assert {"mine", "console", "jsonl"} <= {c.plugin for c in made.calls("on_step")}


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

    made = managed(loaded("slow", on_step, compute_loss), loaded("fast", on_end))
    for _ in range(3):
        made.on_step(None, None, None)  # type: ignore[arg-type]
    made.on_end(None, None)  # type: ignore[arg-type]
    made.compute_loss(None, None, None, None)  # type: ignore[arg-type]
    assert dict(made.counts) == {
        ("slow", "on_step"): 3, ("fast", "on_end"): 1, ("slow", "compute_loss"): 1, ("base", "compute_loss"): 1,
    }  # fmt: skip
    assert 0.06 <= made.seconds["slow", "on_step"] < 1
    assert made.seconds["slow", "compute_loss"] >= 0.02 > made.seconds["base", "compute_loss"]


def test_current_is_the_plugin_whose_hook_runs_and_the_core_outside() -> None:
    seen: list[str] = []
    made: Hooks

    @hookimpl
    def build_optimizer() -> str:
        seen.append(made.current())
        return "optimizer"

    @hookimpl(wrapper=True, specname="build_optimizer")
    def wrapped() -> Any:
        seen.append(made.current())
        answer = yield
        seen.append(made.current())
        return answer

    wrapped.__name__ = "build_optimizer"
    rest = [("base", "build_optimizer")]
    made = managed(loaded("outer", wrapped), loaded("inner", build_optimizer), replaced=rest)
    made.build_optimizer(None, None)  # type: ignore[arg-type]
    assert seen == ["outer", "inner", "outer"]
    assert made.current() == "the core"


def test_location_is_relative_to_the_working_folder_and_sees_through_decorators(
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
    assert dispatch.location(decorated) == f"{Path(__file__).name}:{line}"
    monkeypatch.chdir(tmp_path)
    assert dispatch.location(decorated) == f"{__file__}:{line}"


def test_times_of_the_last_run_are_shown_with_the_hooks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tunesmith.cli.show import hook_rows

    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "run.json").write_text(json.dumps({"hook_seconds": {"sft.compute_loss": 1.5}}))
    rows = {row["hook"]: row for row in hook_rows(start(load(tmp_path, BASE + DATA)))}
    assert [(c["plugin"], c["seconds"]) for c in rows["compute_loss"]["calls"]] == [("sft", 1.5)]
    assert {c["seconds"] for c in rows["on_step"]["calls"]} == {None}
