"""Build plugins and distributions for one test: on disk, as pip would install them, or in memory."""

from __future__ import annotations

import importlib
import json
import os
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from tunesmith.config.config import Config
from tunesmith.config.load import load_config
from tunesmith.errors import Problem, TunesmithError
from tunesmith.plugins.discovery import LoadedPlugin
from tunesmith.plugins.manager import Hooks
from tunesmith.plugins.metadata import describe
from tunesmith.plugins.models import ModelSpec
from tunesmith.plugins.plugin import Method, Plugin, hookimpl
from tunesmith.run import Run

HEADER = "from tunesmith import Method, Needs, Plugin, Settings, hookimpl\n"
BASE = "base_model: nobody/nothing\n"
"""The shortest config: a hub id, which no check resolves."""
DATA = "datasets: [{path: nobody/rows, type: completion}]\n"
"""A dataset entry, which a run needs to start."""


def module_of(source: str, name: str = "fake") -> ModuleType:
    """Execute source as a module without a file."""
    module = ModuleType(name)
    sys.modules[name] = module  # pydantic resolves annotations there
    try:
        exec(compile(HEADER + textwrap.dedent(source), f"<{name}>", "exec"), module.__dict__)
    finally:
        del sys.modules[name]
    return module


def distribution(
    site: Path,
    word: str,
    source: str,
    *,
    described_by: str | None = "",
    name: str | None = None,
    version: str = "1.2.3",
    requires: Sequence[str] = (),
) -> Path:
    """Install a distribution with a plugin into a folder of sys.path, and return the module file of the plugin.

    If the distribution `name` is already there, the plugin is added to it.

    `described_by` is the source that the static metadata describes: "" is the source of the plugin itself, and None
    writes no metadata.
    """
    name = name or f"fake-{word}"
    module = f"fake_{word}" if name.startswith("fake-") else name.replace("-", "_")
    path = site / f"{module}.py"
    path.write_text(HEADER + textwrap.dedent(source), encoding="utf-8")
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(exist_ok=True)
    lines = [
        "Metadata-Version: 2.1",
        f"Name: {name}",
        f"Version: {version}",
        *(f"Requires-Dist: {r}" for r in requires),
    ]
    (info / "METADATA").write_text("\n".join(lines) + "\n", encoding="utf-8")
    entry_points = info / "entry_points.txt"
    before = entry_points.read_text("utf-8") if entry_points.exists() else "[tunesmith]\n"
    entry_points.write_text(f"{before}{word} = {module}\n", encoding="utf-8")
    if described_by is not None:
        static = info / "extra_metadata" / "tunesmith.json"
        static.parent.mkdir(exist_ok=True)
        plugins = json.loads(static.read_text("utf-8")) if static.exists() else {}
        plugins[word] = describe(word, module_of(described_by or source, module))
        static.write_text(json.dumps(plugins), encoding="utf-8")
    importlib.invalidate_caches()
    return path


def local_plugin(folder: Path, name: str, source: str) -> Path:
    """Write a plugin of one file, which a YAML in the same folder can name."""
    path = folder / f"{name}.py"
    path.write_text(HEADER + textwrap.dedent(source), encoding="utf-8")
    return path


def line_of(path: Path, text: str) -> str:
    """Return file:line of the only line with a text."""
    numbers = [n for n, line in enumerate(path.read_text("utf-8").splitlines(), 1) if text in line]
    assert len(numbers) == 1, f"{text!r} is in lines {numbers}"
    return f"{path}:{numbers[0]}"


def write(folder: Path, text: str, name: str = "run.yaml") -> Path:
    path = folder / name
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return path


def load(folder: Path, text: str, *overrides: str) -> tuple[Config, Hooks]:
    """Read and check a config given as text; return it with new hooks."""
    config = load_config(write(folder, text), overrides)
    return config, config.hooks()


def error_of(call: Callable[..., Any], *arguments: Any) -> TunesmithError:
    """Return the error that a call raises."""
    try:
        call(*arguments)
    except TunesmithError as error:
        return error
    raise AssertionError("the call raised no error")


def problems_of(error: TunesmithError, path: Path) -> list[tuple[str, Problem]]:
    """Return (line:column in the file, problem) for each problem of an error."""
    return [(str(p.where).removeprefix(f"{path}:"), p) for p in error.problems]


# in memory


def plugin_of(name: str, *functions: Any, **declaration: Any) -> LoadedPlugin:
    """Build a plugin of some functions, declared by the arguments of Plugin."""
    module = ModuleType(f"memory_{name}")
    for function in functions:
        setattr(module, function.__name__, function)
    return LoadedPlugin(name, f"dist-{name}", "4.5.6", module, Plugin(**declaration))


def base_plugin() -> LoadedPlugin:
    """Build a plugin that implements every hook that needs exactly one answer."""

    @hookimpl
    def load_rows() -> str:
        return "rows"

    @hookimpl
    def load_tokenizer() -> str:
        return "tokenizer"

    @hookimpl
    def load_model(spec: ModelSpec) -> str:
        return f"model for {spec.name}"

    @hookimpl
    def compute_loss() -> dict[str, float]:
        return {"loss": 1.0}

    @hookimpl
    def build_optimizer() -> str:
        return "optimizer"

    @hookimpl
    def build_scheduler() -> str:
        return "scheduler"

    answers = (load_rows, load_tokenizer, load_model, compute_loss, build_optimizer, build_scheduler)
    return plugin_of("base", *answers, method=Method(rows=("text",)), sources=("file",), models=("folder", "hub"))


def hooks_of(*plugins: LoadedPlugin, replaced: Iterable[tuple[str, str]] = ()) -> Hooks:
    """Return the hooks of some plugins and of base_plugin, which implements the hooks that they do not."""
    return Hooks([*plugins, base_plugin()], replaced)


def recorder(name: str, log: list[str], **declaration: Any) -> LoadedPlugin:
    """Build a plugin that appends its name to `log` when a run ends."""

    @hookimpl
    def on_end() -> None:
        log.append(name)

    return plugin_of(name, on_end, **declaration)


def answer(name: str, plugin: str, **declaration: Any) -> LoadedPlugin:
    """Build a plugin that implements the hook `name` and answers with its own name."""

    @hookimpl
    def implementation() -> str:
        return plugin

    implementation.__name__ = name
    return plugin_of(plugin, implementation, **declaration)


def fake_run(
    folder: Path,
    *plugins: LoadedPlugin,
    step: int = 0,
    total_steps: int = 100,
    main: bool = True,
    resume: str | None = None,
    **settings: Any,
) -> Run:
    """Return a run with an output folder, plugins and one class of settings, but without a config file."""
    config = SimpleNamespace(
        core=SimpleNamespace(output_dir=str(folder), metric_for_best_model="eval_loss", resume_from_checkpoint=resume),
        document=SimpleNamespace(name="run.yaml", values={"seed": 7}, keys={}, where=lambda path: "run.yaml:3:1"),
        settings=lambda model: model(**settings),
    )
    run = Run(config, hooks_of(*plugins))  # type: ignore[arg-type]
    run.step, run.total_steps = step, total_steps
    run._parallelism = SimpleNamespace(world=SimpleNamespace(main=main))  # type: ignore[assignment]
    return run


def end(run: Run) -> None:
    """End a run: wait for its loggers, and close what it owns."""
    with run.alive(), run.hooks.logging(run):
        pass


def in_fork(action: Any) -> int:
    """Return the exit code of a forked child that runs an action; negative for a signal."""
    if (pid := os.fork()) == 0:
        code = 1
        try:
            action()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
