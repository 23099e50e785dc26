"""The hook manager orders plugins, checks arity and signatures, and names the plugin at fault."""

from __future__ import annotations

import random
from collections.abc import Generator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from tests.contract.fakes import BASE, answer, error_of, hooks_of, line_of, load, local_plugin, plugin_of, recorder
from tunesmith.plugins import discovery
from tunesmith.plugins.hookspecs import HOOKS
from tunesmith.plugins.manager import Hooks
from tunesmith.plugins.plugin import hookimpl

# order

ORDERS: dict[str, tuple[dict[str, dict[str, Any]], str]] = {  # declarations in the order of the config -> call order
    "config order": ({"b": {}, "a": {}, "c": {}}, "bac"),
    "after": ({"a": {"after": ["b"]}, "b": {}, "c": {}}, "bac"),
    "before": ({"a": {}, "b": {}, "c": {"before": ["a"]}}, "bca"),
    "minimal reordering": ({"a": {}, "b": {"after": ["d"]}, "c": {}, "d": {}}, "acdb"),
    "a chain": ({"a": {"after": ["b"]}, "b": {"after": ["c"]}, "c": {}}, "cba"),
    "same constraint twice": ({"a": {"after": ["b"]}, "b": {"before": ["a"]}}, "ba"),
    "inactive plugin": ({"a": {"after": ["x"], "before": ["y"]}, "b": {}}, "ab"),
}


@pytest.mark.parametrize("case", ORDERS)
def test_call_order_is_that_of_the_config_refined_by_after_and_before(case: str) -> None:
    declarations, order = ORDERS[case]
    log: list[str] = []
    hooks = hooks_of(*(recorder(name, log, **declaration) for name, declaration in declarations.items()))
    hooks.on_end(None, None)  # type: ignore[arg-type]
    assert "".join(log) == order
    assert "".join(c.plugin for c in hooks.calls("on_end")) == order


def test_cycle_of_after_and_before_names_only_its_members() -> None:
    plugins = [
        recorder("alone", []),
        recorder("egg", [], after=["hen"]),
        recorder("hen", [], after=["egg"]),
        recorder("omelette", [], after=["egg"]),
    ]
    error = error_of(hooks_of, *plugins)
    assert (error.exit_code, error.problems[0].code) == (6, "hook-order")
    assert "egg" in str(error) and "hen" in str(error)
    assert "alone" not in str(error) and "omelette" not in str(error)


CONFIG = {
    "base_model": "nobody/nothing", "plugins": ["tensorboard", "./mine.py", "earlystop"], "adapter": "lora",
    "generate_samples": True, "use_tensorboard": True, "early_stopping_patience": 2, "val_set_size": 0.1,
    "datasets": [{"path": "x", "type": "chat_template"}, {"path": "y", "type": "alpaca"}],
}  # fmt: skip


def test_plugins_are_ordered_by_the_config_then_by_name(tmp_path: Path) -> None:
    local_plugin(tmp_path, "mine", "plugin = Plugin()")
    _, hooks = load(tmp_path, yaml.safe_dump(CONFIG, sort_keys=False))
    names = [p.name for p in hooks.plugins]
    assert names[:3] == ["tensorboard", "mine", "earlystop"]
    assert names[3:] == sorted(names[3:])
    assert {
        "adamw",
        "alpaca",
        "chat",
        "console",
        "diagnosis",
        "hf",
        "jsonl",
        "lora",
        "report",
        "runs",
        "samples",
        "schedules",
        "sft",
    } == set(names[3:])


def test_trylast_hooks_keep_their_order(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        local_plugin(tmp_path, name, "plugin = Plugin()\n@hookimpl(trylast=True)\ndef on_step(record): ...\n")
    _, hooks = load(tmp_path, BASE + "plugins: [./b.py, ./a.py, ./c.py]")
    order = [call.plugin for call in hooks.calls("on_step")]
    assert order == ["console", "sft", "b", "a", "c"]


def test_order_is_independent_of_key_order_and_discovery_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local_plugin(tmp_path, "mine", "plugin = Plugin()")
    entry_points = list(discovery.metadata.entry_points(group="tunesmith"))
    orders = set()
    for seed in range(5):
        shuffle = random.Random(seed).shuffle
        shuffle(entry_points)
        monkeypatch.setattr(discovery.metadata, "entry_points", lambda group: list(entry_points))
        items = list(CONFIG.items())
        shuffle(items)
        _, hooks = load(tmp_path, yaml.safe_dump(dict(items), sort_keys=False))
        orders.add(tuple((name, tuple(c.plugin for c in hooks.calls(name))) for name in HOOKS))
    assert len(orders) == 1


# arity

ONE = sorted(name for name, function in HOOKS.items() if function.arity == "one" and not function.default)
WITH_DEFAULT = sorted(name for name, function in HOOKS.items() if function.default)


@pytest.mark.parametrize("name", ONE)
def test_two_implementations_of_a_single_hook_are_both_reported_with_their_places(name: str) -> None:
    error = error_of(hooks_of, answer(name, "rival"))
    [problem] = error.problems
    assert (error.exit_code, problem.code) == (6, "hook-arity")
    assert problem.message.startswith(name)
    for plugin in ("rival", "base"):
        assert f"{plugin} (dist-{plugin} 4.5.6, " in problem.message
    assert len([part for part in problem.message.replace(")", " ").split() if ".py:" in part]) == 2


@pytest.mark.parametrize("name", WITH_DEFAULT)
def test_hook_with_a_default_takes_at_most_one_answer(name: str) -> None:
    assert hooks_of(answer(name, "alone")).calls(name)[0].plugin == "alone"
    error = error_of(hooks_of, answer(name, "one"), answer(name, "two"))
    assert "answered by one (dist-one" in str(error) and "and two (dist-two" in str(error)


def test_engine_answers_a_hook_with_a_default_and_wrappers_surround_it() -> None:
    @hookimpl(wrapper=True)
    def build_scorer(name: str) -> Generator[None, Any, Any]:
        return (name, type((yield)).__name__)

    hooks = hooks_of(plugin_of("around", build_scorer))
    run = SimpleNamespace(world=SimpleNamespace(axis=lambda name: SimpleNamespace(size=1)))
    assert hooks.build_scorer(run, "policy", None) == ("policy", "ChunkedScorer")


def test_all_arity_errors_are_reported_at_once_before_weights_are_loaded() -> None:
    error = error_of(hooks_of, answer("load_model", "one", models=("hub",)), answer("compute_loss", "two"))
    assert [p.message.split()[0] for p in error.problems] == ["compute_loss", "load_model"]


def test_single_hook_without_an_implementation_is_an_error() -> None:
    error = error_of(Hooks, [])
    assert sorted(p.message.split()[0] for p in error.problems) == ONE
    assert "it is answered by no plugin" in str(error)


def test_none_from_a_single_hook_is_an_error_that_names_the_plugin() -> None:
    @hookimpl
    def load_tokenizer() -> None:
        return None

    hooks = hooks_of(plugin_of("silent", load_tokenizer), replaced=[("base", "load_tokenizer")])
    error = error_of(hooks.load_tokenizer, None)
    assert error.exit_code == 6
    assert "silent (dist-silent 4.5.6) returned None from load_tokenizer" in str(error) and __file__.rpartition("/")[
        2
    ] in str(error.problems[0].where)


@pytest.mark.parametrize("name", ["patch_model", "filter_rows", "validate", "inspect", "diagnose"])
def test_wrapping_an_unwrappable_hook_is_an_error(name: str) -> None:
    @hookimpl(wrapper=True)
    def implementation() -> Any:
        return (yield)

    implementation.__name__ = name
    error = error_of(hooks_of, plugin_of("wrapping", implementation))
    assert error.problems[0].code == "hook-arity"
    assert "wrapping" in str(error)


# signatures

SIGNATURES = {  # source of an implementation -> code, part of the error
    "misspelled": ("def on_stpe(run): ...", "hook-unknown", "did you mean 'on_step'?"),
    "unknown": ("def frobnicate(run): ...", "hook-unknown", "load_model"),
    "wrong argument": ("def on_step(runn): ...", "hook-signature", "on_step offers: run, policy, record"),
    "extra argument": ("def on_end(run, policy, record): ...", "hook-signature", "asks for record"),
    "variable arguments": ("def on_end(*args): ...", "hook-signature", "asks for args"),
    "wrapper that does not yield": ("def on_end(run): ...", "hook-signature", "mine (./mine.py local)"),
}


@pytest.mark.parametrize("case", SIGNATURES)
def test_wrong_hook_or_argument_is_a_load_error_with_its_line(case: str, tmp_path: Path) -> None:
    source, code, words = SIGNATURES[case]
    decorator = "@hookimpl(wrapper=True)" if "wrapper" in case else "@hookimpl"
    file = local_plugin(tmp_path, "mine", f"plugin = Plugin()\n\n{decorator}\n{source}\n")
    error = error_of(load, tmp_path, BASE + "plugins: [./mine.py]")
    [problem] = error.problems
    assert (error.exit_code, problem.code) == (6, code)
    assert "mine (./mine.py local)" in problem.message
    assert words in str(error)
    if "wrapper" not in case:
        assert problem.where == line_of(file, "@hookimpl")


def test_implementation_may_take_fewer_arguments_in_any_order() -> None:
    seen: list[Any] = []

    @hookimpl
    def on_step(record: str, run: str) -> None:
        seen.append((run, record))

    @hookimpl
    def on_end() -> None:
        seen.append("end")

    hooks = hooks_of(plugin_of("a", on_step, on_end))
    hooks.on_step("run", "policy", "record")  # type: ignore[arg-type]
    hooks.on_end("run", "policy")  # type: ignore[arg-type]
    assert seen == [("run", "record"), "end"]


def test_every_hook_has_a_method_and_documentation() -> None:
    for name, function in HOOKS.items():
        assert callable(getattr(Hooks, name)), name
        assert function.arity in ("one", "keyed", "chain", "all")
        documentation = str(function.__doc__)
        assert all(part in documentation for part in ("When:", "Answers:", "Example:", "@hookimpl", f"def {name}(")), (
            name
        )
