"""The core, the engine and the plugins import only what they may."""

from __future__ import annotations

from pathlib import Path

import pytest

import tunesmith
from tests.repo.source import (
    CORE,
    ROOT,
    Import,
    imports,
    module_name,
    plugin_folders,
    python_files,
    short,
    strings,
    words,
)

HEAVY = {"torch", "transformers", "peft", "datasets", "rich", "tensorboard"}
CORE_FILES, ENGINE_FILES = python_files("core"), python_files("engine")
MODULES = {module_name(path): path for path in [*CORE_FILES, *ENGINE_FILES]}
LIBRARIES = {"transformers", "peft", "datasets"}  # for plugins only
TORCH = {"torch", "numpy", "accelerate", "safetensors"}  # for the engine and plugins

# String constants of core and engine that equal a plugin's name but mean something else: (file, string) -> reason.
ALLOWED_WORDS: dict[tuple[str, str], str] = {
    ("core/tunesmith/files/paths.py", "files"): "a word of a message",
    ("core/tunesmith/config/secrets.py", "wandb"): "a part of the name of an environment variable",
    ("core/tunesmith/cli/examples.py", "stepwise"): "a row kind",
    ("core/tunesmith/cli/examples.py", "completion"): "what an answer is called",
    ("core/tunesmith/config/yamlfile.py", "merge"): "the tag of YAML's `<<`",
    ("engine/tunesmith_engine/rounds/statistics.py", "reward"): "the name of a metric",
    ("engine/tunesmith_engine/rounds/statistics.py", "completion"): "a column of a table",
    ("core/tunesmith/outline.py", "completion"): "a unit of a step",
    ("engine/tunesmith_engine/rounds/arguments.py", "prompts"): "an argument of a reward function, as in TRL",
    ("core/tunesmith/plugins/rewards.py", "prompts"): "an argument of a reward function, as in TRL",
    ("core/tunesmith/cli/rewards.py", "completion"): "a column of a file with completions",
    ("core/tunesmith/cli/rewards.py", "rewards"): "the scores of a row in a report",
    ("engine/tunesmith_engine/preflight/trial.py", "completion"): "a column of a file with completions",
    ("engine/tunesmith_engine/preflight/trial.py", "rewards"): "the scores of a row in a report",
    ("core/tunesmith/plugins/rewards.py", "rewards"): "a kind of offers",
    ("engine/tunesmith_engine/rounds/rollout.py", "rewards"): "a count of a round",
    ("core/tunesmith/online.py", "rewards"): "a key of the YAML",
    ("core/tunesmith/online.py", "trl"): "a key of the YAML",
    ("core/tunesmith/testing/rows.py", "stepwise"): "a row kind",
    ("core/tunesmith/testing/rows.py", "completion"): "a column of rows",
    ("core/tunesmith/testing/companions/kit_rows.py", "stepwise"): "a row kind",
    ("core/tunesmith/testing/companions/kit_rows.py", "completion"): "a column of rows",
    ("engine/tunesmith_engine/runtime/atomic.py", "files"): "a key of the manifest",
    ("engine/tunesmith_engine/runtime/launch.py", "deepspeed"): "a launcher, which comes with the library of that name",
}


def root(module: str) -> str:
    return module.partition(".")[0]


def is_testing(path: Path) -> bool:
    return path.is_relative_to(CORE / "testing")


def test_only_the_pytest_part_of_testing_imports_pytest() -> None:
    parts = {"plugin.py", "collected.py", "conformance.py"}
    wrong = [
        f"{short(path, item.line)} imports {item.module}"
        for path in CORE_FILES
        for item in imports(path)
        if root(item.module) == "pytest" and not (is_testing(path) and path.name in parts)
    ]
    assert not wrong, "\n".join(wrong)


def test_core_imports_no_plugin_engine_or_torch() -> None:
    """This includes imports inside functions: `tunesmith.engine` is the core's only way to the engine."""
    wrong = [
        f"{short(path, item.line)} imports {item.module}"
        for path in CORE_FILES
        for item in imports(path)
        if root(item.module) in LIBRARIES | TORCH or item.module.startswith("tunesmith_")
        if not (is_testing(path) and item.deep and root(item.module) in TORCH)  # runs and tensors are its subject
    ]
    assert CORE_FILES
    assert not wrong, "\n".join(wrong)


def test_kernel_does_not_import_the_command_line() -> None:
    """The exceptions are `python -m tunesmith` and the conformance checks, which read what `explain` knows."""
    above = [path for path in CORE_FILES if path.parent.name == "cli" or is_testing(path)]
    kernel = [path for path in CORE_FILES if path not in above and path.name != "__main__.py"]
    wrong = [
        f"{short(path, item.line)} imports {item.module}"
        for path in kernel
        for item in imports(path)
        if item.module.startswith("tunesmith.cli") or root(item.module) in ("click", "rich")
    ]
    assert len(kernel) > 20
    assert not wrong, "\n".join(wrong)


def test_engine_imports_no_plugin_and_no_library_of_plugins() -> None:
    wrong = [
        f"{short(path, item.line)} imports {item.module}"
        for path in ENGINE_FILES
        for item in imports(path)
        if root(item.module) in LIBRARIES
        or (item.module.startswith("tunesmith_") and root(item.module) != "tunesmith_engine")
    ]
    assert ENGINE_FILES
    assert not wrong, "\n".join(wrong)


def test_plugin_does_not_import_another_plugin() -> None:
    wrong = []
    for folder in plugin_folders():
        for path in folder.rglob("*.py"):
            for item in imports(path):
                if item.module.startswith("tunesmith_") and root(item.module) != f"tunesmith_{folder.name}":
                    wrong.append(f"{short(path, item.line)} imports {item.module}")
    assert not wrong, "\n".join(wrong)


def is_public(item: Import) -> bool:
    """Return True if an import from the core names something that exists and has no leading underscore."""
    if any(part.startswith("_") for part in f"{item.module}.{item.name}".split(".")):
        return False
    if item.module == "tunesmith":
        return item.name in ("", *tunesmith.__all__) or f"tunesmith.{item.name}" in MODULES
    return item.module in MODULES


def test_plugin_imports_only_public_names_of_the_core() -> None:
    wrong = [
        f"{short(path, item.line)} imports {item.module} {item.name}"
        for folder in plugin_folders()
        for path in (folder / f"tunesmith_{folder.name}").rglob("*.py")
        for item in imports(path)
        if root(item.module) == "tunesmith" and not is_public(item)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("folder", plugin_folders(), ids=lambda folder: folder.name)
def test_importing_a_plugin_imports_nothing_heavy(folder: Path) -> None:
    package = folder / f"tunesmith_{folder.name}"
    own_modules = {module_name(path): path for path in package.rglob("*.py")}
    seen, queue = set(), [f"tunesmith_{folder.name}"]
    assert queue[0] in own_modules, f"{short(package)}/__init__.py is missing"
    while queue:
        module = queue.pop()
        seen.add(module)
        for item in imports(own_modules[module]):
            if not item.deep:
                where = short(own_modules[module], item.line)
                assert root(item.module) not in HEAVY, f"{where} imports {item.module}; import it in the function"
                targets = {item.module, f"{item.module}.{item.name}"} & set(own_modules)
                queue += sorted(targets - seen)


def edges(deep: bool) -> dict[str, set[str]]:
    """Return the import graph of core and engine: module -> imported modules; with `deep`, inside functions too."""
    graph: dict[str, set[str]] = {}
    for module, path in MODULES.items():
        items = [item for item in imports(path) if deep or not item.deep]
        targets = {name for item in items for name in (item.module, f"{item.module}.{item.name}")}
        graph[module] = (targets & set(MODULES)) - {module}
    return graph


def cycle(graph: dict[str, set[str]]) -> list[str]:
    """Return the nodes of one cycle of a graph, or an empty list."""
    done: set[str] = set()

    def visit(node: str, path: list[str]) -> list[str]:
        if node in path:
            return [*path[path.index(node) :], node]
        if node not in done:
            for target in sorted(graph[node]):
                if loop := visit(target, [*path, node]):
                    return loop
            done.add(node)
        return []

    return next((loop for node in sorted(graph) if (loop := visit(node, []))), [])


def test_core_and_engine_have_no_import_cycle() -> None:
    loop = cycle(edges(deep=False))
    assert not loop, " -> ".join(loop)


def test_deep_graph_includes_imports_inside_functions() -> None:
    """The deep graph has at least the edges of the shallow one, and `cycle` returns the cycle of a known graph."""
    shallow, deep = edges(deep=False), edges(deep=True)
    assert all(shallow[module] <= deep[module] for module in shallow)
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]


def test_core_and_engine_name_no_plugin() -> None:
    wrong = []
    names = {f"tunesmith{dash}{word}" for word in words() for dash in "-_"}
    for path in [*CORE_FILES, *ENGINE_FILES]:
        allowed = {word for file, word in ALLOWED_WORDS if path == ROOT / file}
        for text, line in strings(path):
            exact = text in words() and text not in allowed
            parts = {text[start:].partition(end)[0] for start in positions(text) for end in (" ", ".", '"', "[", "/")}
            if exact or parts & names:
                wrong.append(f"{short(path, line)}: {text!r}")
    assert not wrong, "\n".join(wrong)


def positions(text: str) -> list[int]:
    """Return the indexes at which a text names a package of ours."""
    return [index for index in range(len(text)) if text.startswith(("tunesmith-", "tunesmith_"), index)]


def test_allow_list_names_only_existing_strings() -> None:
    for (file, word), reason in ALLOWED_WORDS.items():
        assert reason
        assert word in {text for text, _ in strings(ROOT / file)}, f"{file} no longer has the string {word!r}"


def test_repository_has_plugins() -> None:
    assert words(), f"no plugins below {ROOT}"
