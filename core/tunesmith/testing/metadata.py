"""Checks of what a plugin declares: its distribution, its static metadata, its hooks, and what it imports."""

from __future__ import annotations

import ast
import functools
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tunesmith.config.switches import is_selector_value
from tunesmith.plugins.discovery import API, CORE, installed
from tunesmith.spelling import nearest
from tunesmith.testing import running
from tunesmith.testing.checks import Failure, check
from tunesmith.testing.subject import Subject

HEAVY = ("torch", "transformers", "peft", "accelerate", "datasets")
ANSWERED_BY = {
    "rl": "compute_loss", "adapter": "patch_model", "optimizer": "build_optimizer", "lr_scheduler": "build_scheduler",
}  # fmt: skip
"""Selector -> the hook that a plugin implements if it answers a value of the selector."""
IMPORTER = """
import importlib, json, sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in HEAVY:
            seen.append(name)
            raise ImportError(name)
HEAVY, seen, result = set(sys.argv[1].split(",")), [], {}
sys.meta_path.insert(0, Watch())
for target in sys.argv[2:]:
    seen.clear()
    try:
        importlib.import_module(target)
        result[target] = list(seen)
    except Exception as error:
        result[target] = list(seen) or [f"{type(error).__name__}: {error}"]
print(json.dumps(result))
"""
"""Import modules without the heavy libraries, and print which of them each module asks for."""
REWRITE = "write tunesmith.json again and reinstall (docs/write-a-plugin.md; in this repository: make metadata)"


@check("packaged")
def entry_point(subject: Subject) -> None:
    """Check that the entry point leads to a module with a docstring and one `plugin = Plugin(...)`."""
    subject.candidate.load()
    if not subject.info["summary"].strip():
        message = f"the module {subject.candidate.target} has no docstring"
        raise Failure(message, "begin it with one line that says what the plugin does")
    for command, (target, _) in subject.loaded.declaration.commands.items():
        module, _, name = target.partition(":")
        if not callable(getattr(importlib.import_module(module), name, None)):
            raise Failure(f"command {command}: {target} does not exist", "write Plugin(commands=...) as module:name")


@check("packaged")
def static_metadata(subject: Subject) -> None:
    """Check that tunesmith.json in the distribution equals what the module declares."""
    static = subject.candidate.static
    if static is None:
        raise Failure(f"{subject.candidate.distribution} has no tunesmith.json", REWRITE)
    described = json.loads(json.dumps(subject.info))
    different = sorted(key for key in {*static, *described} if static.get(key) != described.get(key))
    if different:
        key = different[0]
        message = f"tunesmith.json differs in {', '.join(different)}: {key} is {static.get(key)!r:.200}"
        raise Failure(f"{message}, and the module declares {described.get(key)!r:.200}", REWRITE)


@check("packaged")
def version_range(subject: Subject) -> None:
    """Check that the distribution requires ranges of versions of the core and the engine, with both ends."""
    from packaging.requirements import Requirement

    wanted = {Requirement(line).name.replace("_", "-"): Requirement(line) for line in subject.candidate.requires}
    for name in API:
        operators = {one.operator for one in wanted[name].specifier} if name in wanted else set()
        if not (operators & {"==", "~="} or (operators & {">=", ">"} and operators & {"<", "<="})):
            example = f'"{name}>=0.1,<0.2"'
            message = f"{subject.candidate.distribution} does not require a range of versions of {name}"
            raise Failure(message, f"add {example} to its dependencies: a new {CORE} may change a hook")


@check("any")
def declaration(subject: Subject) -> None:
    """Check that declared answers, strategies, sources, switches and methods have the hooks that they need."""
    info, plugin = subject.info, subject.loaded.declaration
    hooks, keys = info["hooks"], info["schema"].get("properties", {})
    needed = {ANSWERED_BY[key]: f"answers {key}" for key in info["answers"] if key in ANSWERED_BY}
    needed |= {"build_dataset": "strategies"} if info["strategies"] else {}
    needed |= {"load_rows": "sources"} if info["sources"] else {}
    needed |= {"compute_loss": "method"} if info["method"] else {}
    for hook, declared in needed.items():
        if hooks.get(hook) != "impl":
            raise Failure(f"Plugin({declared}) is declared, but {hook} is not implemented", f"implement {hook}")
    declared_by = {"compute_loss": "method", "build_dataset": "strategies", "load_rows": "sources"}
    for hook, declared in declared_by.items():
        if hooks.get(hook) == "impl" and not info[declared]:
            raise Failure(f"{hook} is implemented, but nothing selects it", f"write Plugin({declared}=...)")
    own = [switch for switch in info["switches"] if not is_selector_value(switch)]
    for declared, names in (("switches", own), ("on_resume", plugin.on_resume)):
        if unknown := set(names) - set(keys):
            raise Failure(f"{declared} names {min(unknown)}, which is not a key of its settings", "fix the name")
    if info["dataset_schema"] and not info["strategies"]:
        raise Failure("dataset_settings are declared without strategies", "write Plugin(strategies=...)")
    if keys and not hooks:
        raise Failure("settings are declared, but no hook is implemented that could read them", "drop the settings")


@check("any")
def hook_signatures(subject: Subject) -> None:
    """Check that each hook exists, asks for parameters that it offers, and is marked with @hookimpl."""
    module, offered = subject.loaded.module, running.hook_parameters()
    for name, kind in subject.info["hooks"].items():
        if name not in offered:
            close = nearest(name, set(offered))
            raise Failure(f"unknown hook {name}", f"did you mean {close}?" if close else "docs/hooks.md lists them")
        function = getattr(module, name)
        code = getattr(function, "__wrapped__", function).__code__
        unknown = [p for p in code.co_varnames[: code.co_argcount] if p not in ("self", *offered[name])]
        if unknown:
            message = f"{code.co_filename}:{code.co_firstlineno}: {name} asks for {', '.join(unknown)}"
            raise Failure(message, f"{name} offers {', '.join(offered[name])}")
        if kind == "wrapper" and not code.co_flags & 0x20:  # CO_GENERATOR
            raise Failure(f"the wrapper of {name} does not yield", "yield once, and return the answer")
    for name in offered:
        function = vars(module).get(name)
        own = callable(function) and getattr(function, "__module__", None) == module.__name__
        if own and name not in subject.info["hooks"]:
            raise Failure(f"{name} has the name of a hook, but is never called", "add @hookimpl, or rename it")


@check("packaged")
def light_import(subject: Subject) -> None:
    """Check that importing the module imports neither torch nor transformers, so that `--help` starts fast."""
    heavy = _imports(tuple(candidate.target for candidate in installed().values()))[subject.candidate.target]
    if heavy:
        message = f"importing {subject.candidate.target} imports {', '.join(heavy[:3])}"
        raise Failure(message, "import it inside the functions that use it, and under TYPE_CHECKING for annotations")


@functools.cache
def _imports(targets: tuple[str, ...]) -> dict[str, list[str]]:
    """Return the heavy modules that each module imports, from one process for all of them."""
    command = [sys.executable, "-c", IMPORTER, ",".join(HEAVY), *targets]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    completed = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=120)
    if completed.returncode:
        raise RuntimeError(completed.stderr[-2000:])
    result: dict[str, list[str]] = json.loads(completed.stdout.splitlines()[-1])
    return result


@check("any")
def error_codes(subject: Subject) -> None:
    """Check that every error code in the source is known to `tunesmith explain`."""
    from tunesmith.cli.explain import catalogue

    known = {*catalogue()["codes"], *subject.info["errors"]}
    for code, place in _codes(subject.loaded.module):
        if code not in known:
            raise Failure(f"{place}: `tunesmith explain` does not know the code {code!r}", "describe it in errors.toml")


def _codes(module: Any) -> Iterator[tuple[str, str]]:
    """Yield each `code="..."` in the source of a plugin with its place."""
    folder = next(iter(getattr(module, "__path__", ())), None)
    for path in sorted(Path(folder).rglob("*.py")) if folder else [Path(module.__file__)]:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2].endswith(("rror", "roblem")):
                for keyword in node.keywords:
                    if keyword.arg == "code" and isinstance(keyword.value, ast.Constant):
                        yield str(keyword.value.value), f"{path}:{node.lineno}"
