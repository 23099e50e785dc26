"""Read this repository's own source for the tests in this folder: files, imports and strings."""

from __future__ import annotations

import ast
import functools
import json
import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "core" / "tunesmith"


@functools.cache
def files() -> list[Path]:
    """Return the tracked files, and the untracked ones that git does not ignore."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    return sorted(p for name in listed.stdout.decode().split("\0") if name and (p := ROOT / name).is_file())


def python_files(*folders: str) -> list[Path]:
    """Return the Python files below the given top-level folders, or below the root without any."""
    paths = [path for path in files() if path.suffix == ".py"]
    return [path for path in paths if not folders or path.relative_to(ROOT).parts[0] in folders]


def plugin_folders(*groups: str) -> list[Path]:
    """Return plugins/<name> and contrib/<name>, or only the folders of the given groups."""
    return sorted(
        path.parent for group in groups or ("plugins", "contrib") for path in ROOT.glob(f"{group}/*/pyproject.toml")
    )


def words(group: str = "plugins") -> list[str]:
    return [folder.name for folder in plugin_folders(group)]


def plugin_metadata() -> dict[str, dict[str, Any]]:
    """Return name -> static metadata of each first-party plugin, as `make metadata` writes it."""
    return {
        name: info
        for folder in plugin_folders("plugins")
        for name, info in json.loads((folder / "tunesmith.json").read_text("utf-8")).items()
    }


def toml(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text("utf-8"))


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


def short(path: Path, line: int = 0) -> str:
    return f"{path.relative_to(ROOT)}:{line}" if line else str(path.relative_to(ROOT))


@dataclass(frozen=True)
class Import:
    """`from module import name`, or `import module` with an empty name; `deep` if it is inside a function."""

    module: str
    name: str
    line: int
    deep: bool


def module_name(path: Path) -> str:
    """Return the dotted name of a file in its package: core/tunesmith/files/row.py -> tunesmith.files.row."""
    parts = [path.stem] if path.stem != "__init__" else []
    folder = path.parent
    while (folder / "__init__.py").exists():
        parts.insert(0, folder.name)
        folder = folder.parent
    return ".".join(parts)


def imports(path: Path, typing: bool = False) -> list[Import]:
    """Return the imports of a file at any depth; with `typing`, also those that only a type checker reads."""
    package = module_name(path) if path.stem == "__init__" else module_name(path).rpartition(".")[0]
    return list(_imports(tree(path).body, package, deep=False, typing=typing))


def _imports(body: list[ast.stmt] | list[ast.AST], package: str, deep: bool, typing: bool = False) -> Iterator[Import]:
    for node in body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            yield from _imports([*node.body, *node.orelse] if typing else node.orelse, package, deep, typing)
        elif isinstance(node, ast.Import):
            yield from (Import(alias.name, "", node.lineno, deep) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                base = package.split(".")[: len(package.split(".")) - node.level + 1]
                module = ".".join([*base, module] if module else base)
            yield from (Import(module, alias.name, node.lineno, deep) for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            if node.args and isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str):
                yield Import(node.args[0].value, "", node.lineno, deep)
            yield from _imports(list(ast.iter_child_nodes(node)), package, deep, typing)
        else:
            inside = deep or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _imports(list(ast.iter_child_nodes(node)), package, inside, typing)


def docstrings(module: ast.Module) -> set[ast.Constant]:
    """Return the strings that are statements: docstrings, also those of attributes."""
    return {
        node.value
        for node in ast.walk(module)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    }


def strings(path: Path) -> list[tuple[str, int]]:
    """Return (string, line) of each string constant and each part of an f-string, without docstrings."""
    skipped = docstrings(tree(path))
    return [
        (node.value, node.lineno)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in skipped
    ]
