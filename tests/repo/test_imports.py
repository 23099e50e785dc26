"""Who may import whom."""

from __future__ import annotations

from pathlib import Path

import pytest

import tunesmith
from tests.repo.source import (
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
LIBRARIES = {"transformers", "peft", "datasets"}  # the plugins'
TORCH = {"torch", "numpy", "accelerate", "safetensors"}  # the engine's

# String constants of core and engine that are a plugin's word and mean something else: (file, word) -> reason.
ALLOWED_WORDS: dict[tuple[str, str], str] = {
    ("core/tunesmith/files/paths.py", "files"): "a word of a message",
    ("core/tunesmith/plugins/hookspecs.py", "reward"): "a role of a model",
    ("core/tunesmith/cli/seen.py", "stepwise"): "a row kind",
    ("core/tunesmith/cli/seen.py", "completion"): "what an answer is called",
    ("engine/tunesmith_engine/runtime/atomic.py", "files"): "a key of the manifest",
}


def root(module: str) -> str:
    return module.partition(".")[0]


def test_the_core_imports_neither_plugin_nor_engine_nor_torch() -> None:
    """Not even inside functions: it reaches the engine by `tunesmith.engine` alone."""
    wrong = [
        f"{short(path, found.line)} imports {found.module}"
        for path in CORE_FILES
        for found in imports(path)
        if root(found.module) in LIBRARIES | TORCH or found.module.startswith("tunesmith_")
    ]
    assert CORE_FILES
    assert not wrong, "\n".join(wrong)


def test_the_kernel_knows_nothing_of_the_command_line() -> None:
    """But for `python -m tunesmith`."""
    kernel = [path for path in CORE_FILES if path.parent.name != "cli" and path.name != "__main__.py"]
    wrong = [
        f"{short(path, found.line)} imports {found.module}"
        for path in kernel
        for found in imports(path)
        if found.module.startswith("tunesmith.cli") or root(found.module) in ("click", "rich")
    ]
    assert len(kernel) > 20
    assert not wrong, "\n".join(wrong)


def test_the_engine_imports_no_plugin_and_none_of_their_libraries() -> None:
    wrong = [
        f"{short(path, found.line)} imports {found.module}"
        for path in ENGINE_FILES
        for found in imports(path)
        if root(found.module) in LIBRARIES
        or (found.module.startswith("tunesmith_") and root(found.module) != "tunesmith_engine")
    ]
    assert ENGINE_FILES
    assert not wrong, "\n".join(wrong)


def test_a_plugin_imports_nothing_of_another() -> None:
    wrong = []
    for folder in plugin_folders():
        for path in folder.rglob("*.py"):
            for found in imports(path):
                if found.module.startswith("tunesmith_") and root(found.module) != f"tunesmith_{folder.name}":
                    wrong.append(f"{short(path, found.line)} imports {found.module}")
    assert not wrong, "\n".join(wrong)


def is_public(found: Import) -> bool:
    """Whether an import from the core is of something that exists and does not begin with an underscore."""
    if any(part.startswith("_") for part in f"{found.module}.{found.name}".split(".")):
        return False
    if found.module == "tunesmith":
        return found.name in ("", *tunesmith.__all__) or f"tunesmith.{found.name}" in MODULES
    return found.module in MODULES


def test_a_plugin_imports_only_public_names_of_the_core() -> None:
    wrong = [
        f"{short(path, found.line)} imports {found.module} {found.name}"
        for folder in plugin_folders()
        for path in (folder / f"tunesmith_{folder.name}").rglob("*.py")
        for found in imports(path)
        if root(found.module) == "tunesmith" and not is_public(found)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("folder", plugin_folders(), ids=lambda folder: folder.name)
def test_the_wiring_of_a_plugin_imports_nothing_heavy(folder: Path) -> None:
    package = folder / f"tunesmith_{folder.name}"
    mine = {module_name(path): path for path in package.rglob("*.py")}
    seen, queue = set(), [f"tunesmith_{folder.name}"]
    assert queue[0] in mine, f"{short(package)}/__init__.py is missing"
    while queue:
        module = queue.pop()
        seen.add(module)
        for found in imports(mine[module]):
            if not found.deep:
                where = short(mine[module], found.line)
                assert root(found.module) not in HEAVY, f"{where} imports {found.module}; import it in the function"
                targets = {found.module, f"{found.module}.{found.name}"} & set(mine)
                queue += sorted(targets - seen)


def edges(deep: bool) -> dict[str, set[str]]:
    """Module of core and engine -> what it imports when it is imported; with `deep`, also when it is called."""
    graph: dict[str, set[str]] = {}
    for module, path in MODULES.items():
        found = [one for one in imports(path) if deep or not one.deep]
        graph[module] = {name for one in found for name in (one.module, f"{one.module}.{one.name}") if name in MODULES}
        graph[module] -= {module}
    return graph


def cycle(graph: dict[str, set[str]]) -> list[str]:
    """One cycle of a graph, or nothing."""
    done: set[str] = set()

    def visit(node: str, path: list[str]) -> list[str]:
        if node in path:
            return [*path[path.index(node) :], node]
        if node not in done:
            for target in sorted(graph[node]):
                if found := visit(target, [*path, node]):
                    return found
            done.add(node)
        return []

    return next((found for node in sorted(graph) if (found := visit(node, []))), [])


def test_the_modules_of_core_and_engine_import_each_other_without_a_cycle() -> None:
    found = cycle(edges(deep=False))
    assert not found, " -> ".join(found)


def test_imports_inside_functions_are_seen_too() -> None:
    """The graph with them has at least the edges of the one without: what the test above leaves out is known."""
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
    return [index for index in range(len(text)) if text.startswith(("tunesmith-", "tunesmith_"), index)]


def test_the_allow_list_names_only_what_is_there() -> None:
    for (file, word), reason in ALLOWED_WORDS.items():
        assert reason
        assert word in {text for text, _ in strings(ROOT / file)}, f"{file} no longer says {word!r}"


def test_the_repository_has_plugins() -> None:
    assert words(), f"no plugins below {ROOT}"
