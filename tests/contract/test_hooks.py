"""The manager of hooks: order, arity, chains, wrappers, and who is named when something fails."""

from __future__ import annotations

import functools
import itertools
import json
import random
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from tests.contract.fakes import BASE, base, line_of, load, loaded, local, refusal, write

from tunesmith import discovery, hooks, hookspecs
from tunesmith.api import start
from tunesmith.config import load_config
from tunesmith.discovery import LoadedPlugin
from tunesmith.errors import ConfigError, DataError, ModelError, SafetyError
from tunesmith.hooks import HOOKS, Hooks
from tunesmith.plugin import hookimpl


def managed(*plugins: LoadedPlugin, replaced: Any = ()) -> Hooks:
    return Hooks([*plugins, base()], replaced)


def recorder(name: str, log: list[str], **declaration: Any) -> LoadedPlugin:
    @hookimpl
    def on_end() -> None:
        log.append(name)

    return loaded(name, on_end, **declaration)


# order

ORDERS: dict[str, tuple[dict[str, dict[str, Any]], str]] = {  # declarations in the given order -> call order
    "as given": ({"b": {}, "a": {}, "c": {}}, "bac"),
    "after": ({"a": {"after": ["b"]}, "b": {}, "c": {}}, "bac"),
    "before": ({"a": {}, "b": {}, "c": {"before": ["a"]}}, "bca"),
    "no more than needed": ({"a": {}, "b": {"after": ["d"]}, "c": {}, "d": {}}, "acdb"),
    "a chain": ({"a": {"after": ["b"]}, "b": {"after": ["c"]}, "c": {}}, "cba"),
    "both say the same": ({"a": {"after": ["b"]}, "b": {"before": ["a"]}}, "ba"),
    "one that is not active": ({"a": {"after": ["x"], "before": ["y"]}, "b": {}}, "ab"),
}


@pytest.mark.parametrize("case", ORDERS)
def test_call_order_is_the_given_one_refined_by_after_and_before(case: str) -> None:
    declarations, order = ORDERS[case]
    log: list[str] = []
    made = managed(*(recorder(name, log, **declaration) for name, declaration in declarations.items()))
    made.on_end(None, None)  # type: ignore[arg-type]
    assert "".join(log) == order
    assert "".join(c.plugin for c in made.calls("on_end")) == order


def test_circle_of_after_and_before_names_its_members_only() -> None:
    plugins = [
        recorder("alone", []),
        recorder("egg", [], after=["hen"]),
        recorder("hen", [], after=["egg"]),
        recorder("omelette", [], after=["egg"]),
    ]
    error = refusal(managed, *plugins)
    assert (error.exit_code, error.problems[0].code) == (6, "hook-order")
    assert "egg" in str(error) and "hen" in str(error)
    assert "alone" not in str(error) and "omelette" not in str(error)


CONFIG = {
    "base_model": "nobody/nothing", "plugins": ["tensorboard", "./mine.py", "earlystop"], "adapter": "lora",
    "generate_samples": True, "use_tensorboard": True, "early_stopping_patience": 2, "val_set_size": 0.1,
    "datasets": [{"path": "x", "type": "chat_template"}, {"path": "y", "type": "alpaca"}],
}  # fmt: skip


def test_plugins_come_in_the_order_of_the_list_then_of_their_words_then_defaults(tmp_path: Path) -> None:
    local(tmp_path, "mine", "plugin = Plugin()")
    _, made = load(tmp_path, yaml.safe_dump(CONFIG, sort_keys=False))
    names = [p.name for p in made.plugins]
    assert names[:3] == ["tensorboard", "mine", "earlystop"]
    assert names[3:9] == ["adamw", "alpaca", "chat", "lora", "samples", "schedules"]
    assert set(names[9:]) == {"hf", "sft", "console", "jsonl"}


def test_order_depends_neither_on_yaml_order_nor_on_discovery_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local(tmp_path, "mine", "plugin = Plugin()")
    found = list(discovery.metadata.entry_points(group="tunesmith"))
    orders = set()
    for seed in range(5):
        shuffle = random.Random(seed).shuffle
        shuffle(found)
        monkeypatch.setattr(discovery.metadata, "entry_points", lambda group: list(found))
        items = list(CONFIG.items())
        shuffle(items)
        _, made = load(tmp_path, yaml.safe_dump(dict(items), sort_keys=False))
        orders.add(tuple((name, tuple(c.plugin for c in made.calls(name))) for name in HOOKS))
    assert len(orders) == 1


# arity

ONE = sorted(name for name, function in HOOKS.items() if function.arity == "one")


def answer(name: str, plugin: str, **declaration: Any) -> LoadedPlugin:
    @hookimpl
    def implementation() -> str:
        return plugin

    implementation.__name__ = name
    return loaded(plugin, implementation, **declaration)


@pytest.mark.parametrize("name", ONE)
def test_two_answers_to_a_hook_for_one_are_both_named_with_their_places(name: str) -> None:
    error = refusal(managed, answer(name, "rival"))
    [problem] = error.problems
    assert (error.exit_code, problem.code) == (6, "hook-arity")
    assert problem.message.startswith(name)
    for plugin in ("rival", "base"):
        assert f"{plugin} (dist-{plugin} 4.5.6, " in problem.message
    assert len([part for part in problem.message.replace(")", " ").split() if ".py:" in part]) == 2


def test_all_breaches_of_arity_are_told_at_once_and_before_weights() -> None:
    error = refusal(managed, answer("load_model", "one"), answer("compute_loss", "two"))
    assert [p.message.split()[0] for p in error.problems] == ["load_model", "compute_loss"]


def test_hook_for_one_that_nobody_answers_is_an_error() -> None:
    error = refusal(Hooks, [])
    assert sorted(p.message.split()[0] for p in error.problems) == ONE
    assert "nobody" in str(error)


def test_answer_of_nothing_to_a_hook_for_one_is_an_error_that_names_the_plugin() -> None:
    @hookimpl
    def load_tokenizer() -> None:
        return None

    made = managed(loaded("silent", load_tokenizer), replaced=[("base", "load_tokenizer")])
    error = refusal(made.load_tokenizer, None)
    assert error.exit_code == 6
    assert "silent (dist-silent)" in str(error) and __file__.rpartition("/")[2] in str(error.problems[0].where)


@pytest.mark.parametrize("name", ["patch_model", "expand", "validate", "inspect"])
def test_hooks_that_cannot_be_wrapped_say_so(name: str) -> None:
    @hookimpl(wrapper=True)
    def implementation() -> Any:
        return (yield)

    implementation.__name__ = name
    error = refusal(managed, loaded("wrapping", implementation))
    assert error.problems[0].code == "hook-arity"
    assert "wrapping" in str(error)


# signatures

SIGNATURES = {  # source of an implementation -> code, words
    "misspelt": ("def on_stpe(run): ...", "hook-unknown", "did you mean 'on_step'?"),
    "unheard of": ("def frobnicate(run): ...", "hook-unknown", "load_model"),
    "wrong argument": ("def on_step(runn): ...", "hook-signature", "on_step offers: run, policy, record"),
    "one too many": ("def on_end(run, policy, record): ...", "hook-signature", "asks for record"),
    "everything": ("def on_end(*args): ...", "hook-signature", "asks for args"),
    "wrapper that does not yield": ("def on_end(run): ...", "hook-signature", "mine (./mine.py local)"),
}


@pytest.mark.parametrize("case", SIGNATURES)
def test_wrong_hook_or_argument_is_an_error_at_load_with_its_line(case: str, tmp_path: Path) -> None:
    source, code, words = SIGNATURES[case]
    decorator = "@hookimpl(wrapper=True)" if "wrapper" in case else "@hookimpl"
    file = local(tmp_path, "mine", f"plugin = Plugin()\n\n{decorator}\n{source}\n")
    error = refusal(load, tmp_path, BASE + "plugins: [./mine.py]")
    [problem] = error.problems
    assert (error.exit_code, problem.code) == (6, code)
    assert "mine (./mine.py local)" in problem.message
    assert words in str(error)
    if "wrapper" not in case:
        assert problem.where == line_of(file, "@hookimpl")


def test_implementation_may_ask_for_fewer_arguments_in_any_order() -> None:
    seen: list[Any] = []

    @hookimpl
    def on_step(record: str, run: str) -> None:
        seen.append((run, record))

    @hookimpl
    def on_end() -> None:
        seen.append("end")

    made = managed(loaded("a", on_step, on_end))
    made.on_step("run", "policy", "record")  # type: ignore[arg-type]
    made.on_end("run", "policy")  # type: ignore[arg-type]
    assert seen == [("run", "record"), "end"]


def test_every_hook_has_a_method_and_a_manual() -> None:
    for name, function in HOOKS.items():
        assert callable(getattr(Hooks, name)), name
        assert function.arity in ("one", "keyed", "chain", "all")
        manual = str(getattr(hookspecs, name).__doc__)
        assert all(part in manual for part in ("When:", "Answers:", "Example:", "@hookimpl", f"def {name}(")), name


# chains and wrappers


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


# failures

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
        for impl in getattr(made._manager.hook, name).get_hookimpls():
            if not impl.wrapper:
                impl.function = lambda *_: "built"
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
    local(tmp_path, "two", CHECKS.format(validate="ConfigError(['c'])", inspect="DataError('d')").replace("['c']", "'c'"))
    path = write(tmp_path, BASE + "plugins: [./one.py, ./two.py]\neval_steps: 3")
    error = refusal(start, load_config(path))
    assert [p.message for p in error.problems] == ["eval_steps needs held-out data", "a", "c", "b", "d"]
    assert error.exit_code == 2


def test_refusal_for_safety_outranks_other_problems(tmp_path: Path) -> None:
    local(tmp_path, "one", CHECKS.format(validate="ConfigError('a')", inspect="SafetyError('b')"))
    error = refusal(start, load_config(write(tmp_path, BASE + "plugins: [./one.py]")))
    assert (error.exit_code, len(error.problems)) == (SafetyError.exit_code, 2)


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
    assert "plugin one answers build_dataset for no type" in str(error)


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
    assert hooks.location(decorated) == f"{Path(__file__).name}:{line}"
    monkeypatch.chdir(tmp_path)
    assert hooks.location(decorated) == f"{__file__}:{line}"


def test_times_of_the_last_run_are_shown_with_the_hooks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tunesmith.show import hook_rows

    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "run.json").write_text(json.dumps({"hook_seconds": {"sft.compute_loss": 1.5}}))
    rows = {row["hook"]: row for row in hook_rows(start(load(tmp_path, BASE)))}
    assert [(c["plugin"], c["seconds"]) for c in rows["compute_loss"]["calls"]] == [("sft", 1.5)]
    assert {c["seconds"] for c in rows["on_step"]["calls"]} == {None}
