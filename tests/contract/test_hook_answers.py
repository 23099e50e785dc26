"""A hook that raises anything, or returns something else than it must, is an error that names its plugin."""

from __future__ import annotations

import builtins
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from tunesmith_engine.training.answers import CHECKS

from tests import tiny
from tests.contract.fakes import error_of, hooks_of, plugin_of
from tunesmith import Method, PluginError, Term, hookimpl
from tunesmith.cli import main
from tunesmith.plugins.discovery import LoadedPlugin
from tunesmith.plugins.dispatch import Chain, Keyed
from tunesmith.plugins.hookspecs import HOOKS
from tunesmith.run import why_wrong

DECLARATION: dict[str, dict[str, Any]] = {
    "compute_loss": {"method": Method(rows=("text",))},
    "load_rows": {"sources": ("s3",)},
    "build_dataset": {"strategies": {"text": ("mine",)}},
    "check_row": {"strategies": {"text": ("mine",)}},
    "load_model": {"models": ("mine",)},
    "build_generator": {"offers": {"generators": {"mine": None}}},
    "score_rewards": {"offers": {"rewards": {"mine": None}}},
}
UNUSED = {
    "validate", "inspect", "check_row", "diagnose", "on_progress", "configure", "save_model",
    "prepare_step", "on_start", "on_step", "write_log",
    "on_end",
}  # fmt: skip
"""Hooks without an answer. That of diagnose is checked by `doctor`."""


def acting_functions(hook: str, act: Callable[[], Any], wrapper: bool = False) -> list[Any]:
    """Return the implementation of a hook that calls `act`."""

    def answer() -> Any:
        return act()

    def wraps() -> Iterator[Any]:
        yield
        return act()

    function: Any = wraps if wrapper else answer
    function.__name__ = hook
    return [hookimpl(wrapper=wrapper)(function)]


def acting(hook: str, act: Callable[[], Any], wrapper: bool = False) -> LoadedPlugin:
    """Build a plugin whose implementation of a hook calls `act`."""
    return plugin_of("mine", *acting_functions(hook, act, wrapper), **({} if wrapper else DECLARATION.get(hook, {})))


def checked_hooks(hook: str, *plugins: LoadedPlugin) -> Any:
    """Return the hooks of some plugins as those of a run, which checks answers. The fakes do not answer the hook."""
    hooks = hooks_of(*plugins, replaced=[("base", hook)])
    hooks.trace.why_wrong = why_wrong
    return hooks


def call(hooks: Any, hook: str, **given: Any) -> Any:
    """Call a hook as the engine does, and read its answer."""
    parameters = HOOKS[hook].__code__.co_varnames[: HOOKS[hook].__code__.co_argcount]
    arguments = dict.fromkeys(parameters, None) | given
    object_of = hooks.hooks[hook]
    if isinstance(object_of, Chain):
        key = parameters[-1]
    else:
        key = object_of.answers[0].plugin.name if isinstance(object_of, Keyed) else ""
    answer = object_of.call(key, **arguments)
    return list(answer) if hook == "build_dataset" else answer


def exceptions(kind: type[BaseException] = BaseException) -> Iterator[type[BaseException]]:
    yield kind
    for below in kind.__subclasses__():
        if getattr(builtins, below.__name__, None) is below:
            yield from exceptions(below)


def raised(kind: type[BaseException]) -> BaseException:
    """Return an instance of a class of exceptions."""
    arguments: dict[str, tuple[Any, ...]] = {
        "SystemExit": (0,), "UnicodeDecodeError": ("utf-8", b"a", 0, 1, "why"),
        "UnicodeEncodeError": ("utf-8", "a", 0, 1, "why"), "UnicodeTranslateError": ("a", 0, 1, "why"),
        "BaseExceptionGroup": ("several", [SystemExit(0)]), "ExceptionGroup": ("several", [KeyError()]),
    }  # fmt: skip
    return kind(*arguments.get(kind.__name__, ("why",)))


@pytest.mark.parametrize("hook", HOOKS)
def test_no_exception_of_python_ends_a_run_as_if_it_were_done(hook: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """During training, a handler of signals is set, so that a KeyboardInterrupt can only come from the plugin."""
    monkeypatch.setattr(signal, "getsignal", lambda number: print)
    for kind in dict.fromkeys(exceptions()):

        def act(kind: type[BaseException] = kind) -> None:
            raise raised(kind)

        error = error_of(call, checked_hooks(hook, acting(hook, act)), hook)
        assert isinstance(error, PluginError) and error.exit_code == 6, kind
        assert f"plugin mine (dist-mine 4.5.6) failed in {hook}: {kind.__name__}" in str(error)
        assert error.problems[0].where and error.problems[0].where.startswith(__file__)


def test_ctrl_c_before_training_stays_ctrl_c() -> None:
    def act() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        call(hooks_of(acting("configure", act)), "configure")


def test_wrapper_that_passes_an_error_on_is_not_blamed() -> None:
    """An error of the engine's own answer stays what it is."""

    @hookimpl(wrapper=True)
    def build_parallelism() -> Iterator[Any]:
        return (yield)

    with pytest.raises(AttributeError):  # the engine is given no run
        call(hooks_of(plugin_of("mine", build_parallelism)), "build_parallelism")


WRONG: dict[str, list[Any]] = {
    "load_rows": ["row", {"a": 1}, 3],
    "filter_rows": ["row", [1], []],
    "load_tokenizer": ["name", {}],
    "build_dataset": ["text", 3, ["text"], iter(["text"])],
    "build_parallelism": ["ddp"],
    "load_model": [torch.nn.Linear(1, 1), "model"],
    "patch_model": ["model", torch.zeros(1)],
    "build_scorer": ["scorer", torch.zeros(1)],
    "saved_parameters": ["weight", 3, [1]],
    "build_generator": ["server"],
    "rollout": ["group", [1]],
    "score_rewards": [1.0, [1.0], [["high"]], [{"a": 1}], {"a": [1]}],
    "compute_advantages": [1.0, [1.0], [["high"]]],
    "compute_loss": [
        torch.zeros(()), {"a": torch.zeros(())}, {"a": Term(torch.zeros(3), "tokens")}, {"a": Term(0.5, "tokens")},  # type: ignore[arg-type]
        {"a": Term(torch.zeros(()), None)}, {"a": Term(torch.zeros(()), "tokens", metric=True)}, {}, [1],  # type: ignore[arg-type]
    ],
    "evaluate": [0.5, {"a": "b"}, {1: 0.5}],
    "learning_rate_factors": [0.5, ["weight"], {"weight": "high"}, {"weight": 0}, {"weight": -1.0}, {3: 1.0}],
    "build_optimizer": ["adamw", torch.nn.Linear(1, 1)],
    "build_scheduler": ["cosine", 1e-4],
}  # fmt: skip
CHAINS = {hook for hook, function in HOOKS.items() if function.arity == "chain"}  # type: ignore[attr-defined]
CASES = [(hook, wrapper) for hook in WRONG for wrapper in (False, True) if not (wrapper and hook in CHAINS)]


def test_every_hook_with_an_answer_is_checked() -> None:
    assert {*WRONG, *UNUSED} == set(HOOKS)
    assert {name.removesuffix("[]") for name in CHECKS} == set(WRONG)


@pytest.mark.parametrize(("hook", "wrapper"), CASES)
def test_wrong_answer_names_the_plugin_at_fault(hook: str, wrapper: bool) -> None:
    """A wrapper is at fault, not the plugin whose answer it replaces."""
    nothing = [None] if wrapper and HOOKS[hook].arity != "all" else []  # type: ignore[attr-defined]
    for wrong in [*WRONG[hook], *nothing]:
        inner = plugin_of("right", *acting_functions(hook, lambda: "right"), **DECLARATION.get(hook, {}))
        plugins = [acting(hook, lambda wrong=wrong: wrong, wrapper), *([inner] if wrapper else [])]  # type: ignore[misc]
        hooks = checked_hooks(hook, *plugins)
        for answer in hooks.hooks[hook].answers if wrapper else ():  # what they answer is not the subject
            answer.check = lambda *_: None
        if wrapper and hook == "build_dataset" and not isinstance(wrong, str | int | None):
            continue  # items are checked where they are built
        error = error_of(partial(call, sources=["one"]), hooks, hook)
        assert isinstance(error, PluginError) and error.exit_code == 6, wrong
        assert "plugin mine (dist-mine 4.5.6) " in str(error) and f"from {hook}" in str(error), wrong


@pytest.mark.parametrize("change", ["detached", "replaced"])
def test_wrapper_that_loses_the_gradient_is_named(change: str) -> None:
    weight = torch.ones((), requires_grad=True)

    @hookimpl
    def compute_loss() -> dict[str, Term]:
        return {"nll": Term(weight * 2, "tokens")}

    method = plugin_of("method", compute_loss, method=Method(rows=("text",)))

    def wraps() -> Iterator[Any]:
        terms = yield
        lost = Term(terms["nll"].sum.detach(), "tokens")
        return terms | {"nll": lost} if change == "detached" else {"other": lost}

    wraps.__name__ = "compute_loss"
    hooks = checked_hooks("compute_loss", method, plugin_of("mine", hookimpl(wrapper=True)(wraps)))
    error = error_of(call, hooks, "compute_loss")
    assert "plugin mine (dist-mine 4.5.6) returned " in str(error) and "gradient" in str(error)
    with torch.no_grad():  # in an evaluation nothing has a gradient
        assert set(call(hooks, "compute_loss")) == {"nll" if change == "detached" else "other"}


HEAD = "import sys\nfrom tunesmith import Plugin, hookimpl\nplugin = Plugin()\n"
STAGES = {
    "an import": "sys.exit(0)",
    "validate": "@hookimpl\ndef validate(run): sys.exit(0)",
    "load_tokenizer": "@hookimpl(wrapper=True)\ndef load_tokenizer(run):\n    yield\n    sys.exit(0)",
    "filter_rows": "@hookimpl\ndef filter_rows(sources): sys.exit(0)",
    "patch_model": "@hookimpl\ndef patch_model(model): sys.exit(0)",
    "backward": (
        "@hookimpl(wrapper=True)\ndef compute_loss():\n    terms = yield\n"
        "    terms['nll'].sum.register_hook(lambda g: sys.exit(0))\n    return terms"
    ),
    "on_step": "@hookimpl\ndef on_step(): sys.exit(0)",
    "save_model": "@hookimpl\ndef save_model(): sys.exit(0)",
    "on_end": "@hookimpl\ndef on_end(): sys.exit(0)",
    "closing": "@hookimpl\ndef configure(run): run.closing.append(lambda: sys.exit(0))",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("answers")
    tiny.sft_config(folder, max_steps=1)
    return folder


@pytest.mark.parametrize("stage", STAGES)
def test_sys_exit_in_a_plugin_is_its_failure(stage: str, folder: Path, tmp_path: Path) -> None:
    (folder / "exits.py").write_text(HEAD + STAGES[stage] + "\n")
    result = CliRunner().invoke(
        main, ["train", str(folder / "run.yaml"), "plugins=[./exits.py]", f"output_dir={tmp_path / 'out'}"]
    )
    assert result.exit_code == 6, result.output
    assert "plugin exits (./exits.py local) " in result.output and "SystemExit" in result.output


def test_method_without_a_gradient_is_named(folder: Path, tmp_path: Path) -> None:
    (folder / "constant.py").write_text(
        "from tunesmith import Method, Needs, Plugin, Term, hookimpl\n"
        "plugin = Plugin(method=Method(rows=('conversation',)), needs=Needs(logps=True))\n"
        "@hookimpl\ndef compute_loss(out, batch): return {'nll': Term(out.logps.sum().detach(), 'tokens')}\n"
    )
    result = CliRunner().invoke(
        main, ["train", str(folder / "run.yaml"), "plugins=[./constant.py]", f"output_dir={tmp_path / 'out'}"]
    )
    assert result.exit_code == 6 and "plugin constant (./constant.py local) returned terms without" in result.output


STEPS = """
import torch
from tunesmith import Plugin, hookimpl
plugin = Plugin(answers={"optimizer": ("odd",)})
class Odd(torch.optim.SGD):
    def step(self, closure=None):
        raise KeyError("on purpose")
@hookimpl
def build_optimizer(model):
    return Odd(model.parameters(), lr=0.1)
"""


def test_object_of_a_plugin_that_fails_outside_of_a_hook_names_the_plugin(tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text(STEPS)
    path = tiny.sft_config(tmp_path, number=4, plugins=[str(tmp_path / "odd.py")], optimizer="odd", max_steps=1)
    error = error_of(tiny.train, path)
    assert error.exit_code == 6 and "plugin odd" in str(error) and "KeyError: 'on purpose'" in str(error)
    assert str(error.problems[0].where) == f"{tmp_path / 'odd.py'}:7"
