"""The folders of core and engine are stages, and their imports point downward only."""

from __future__ import annotations

from collections import defaultdict

import pytest

import tunesmith
from tests.repo.source import imports, module_name, python_files, short

ORDER = {
    "engine": (
        ("preflight",), ("training",), ("rounds",), ("rewards",), ("checkpoint",), ("model",), ("data",), ("batch",),
        ("runtime",),
    ),
    "core": (
        ("testing",), ("__init__", "__main__"), ("cli",), ("api",), ("checks", "first_rows", "online", "resume_rules"),
        ("next_command", "folders", "saved", "tracking", "tracking_service"), ("run",), ("config",), ("plugins",),
        ("files",),
        ("engine", "finding", "outline", "streams"), ("redact", "spelling", "errors", "printable"),
    ),
}  # fmt: skip
"""The folders and single files of both packages, highest first. A file imports from its own level and those below."""
EXCEPTIONS: dict[tuple[str, str], str] = {
    ("plugins.hookspecs.setup", "run"): "a hook's signature names the run that it receives",
    ("plugins.hookspecs.data", "run"): "a hook's signature names the run that it receives",
    ("plugins.hookspecs.model", "run"): "a hook's signature names the run that it receives",
    ("plugins.hookspecs.rounds", "run"): "a hook's signature names the run that it receives",
    ("plugins.hookspecs.training", "run"): "a hook's signature names the run that it receives",
    ("plugins.manager", "run"): "loggers receive the run",
    ("plugins.rewards", "run"): "the rewards of a run are found among its plugins",
    ("plugins.hook_methods", "run"): "one typed method per hook, with the signature of the hook",
    ("plugins.plugin", "run"): "Plugin.needs may be a function of the run",
    ("files.row", "config"): "a source names the dataset entry that its rows come from",
}
"""Imports for a type checker that point upward: (module, package it names) -> reason."""


def edges(package: str) -> dict[tuple[str, str], list[str]]:
    """Return the imports between the parts of a package, TYPE_CHECKING included: (from, to) -> places."""
    root = {"core": "tunesmith", "engine": "tunesmith_engine"}[package]
    places: dict[tuple[str, str], list[str]] = defaultdict(list)
    for path in python_files(package):
        module = module_name(path).removeprefix(root).lstrip(".") or "__init__"
        for one in imports(path, typing=True):
            target = f"{one.module}.{one.name}" if one.module == root else one.module
            if target.startswith(f"{root}.") and target != f"{root}.":
                other = target.removeprefix(f"{root}.").partition(".")[0]
                other = "__init__" if one.module == root and other in tunesmith.__all__ else other  # a public name
                if other != module.partition(".")[0]:
                    places[module, other].append(short(path, one.line))
    return places


@pytest.mark.parametrize("package", ORDER)
def test_imports_point_downward(package: str) -> None:
    level = {part: number for number, parts in enumerate(ORDER[package]) for part in parts}
    upward = [
        f"{', '.join(places)}: {module} imports {other}, which is above it"
        for (module, other), places in edges(package).items()
        if level[other] < level[module.partition(".")[0]] and (module, other) not in EXCEPTIONS
    ]
    assert not upward, "\n".join(upward)


@pytest.mark.parametrize("package", ORDER)
def test_the_order_names_every_part(package: str) -> None:
    known = {part for parts in ORDER[package] for part in parts} | {"__init__"}
    parts = {part for edge in edges(package) for part in (edge[0].partition(".")[0], edge[1])}
    assert parts <= known, f"add {sorted(parts - known)} to the order"
    between = {(module.partition(".")[0], other) for module, other in edges(package)}
    exceptions = len(EXCEPTIONS) if package == "core" else 0
    print(f"{package}: {len(parts)} parts, {len(between)} edges, {exceptions} upward, each named with its reason")


def test_every_exception_is_an_import_that_exists() -> None:
    existing = {edge for package in ORDER for edge in edges(package)}
    assert set(EXCEPTIONS) <= existing
