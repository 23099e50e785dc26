"""Find functions in Python files that a YAML names, by parsing them. Nothing is imported or run."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from tunesmith.errors import SafetyError, TunesmithError
from tunesmith.files.paths import is_library_file
from tunesmith.spelling import FEW, nearest

Error = Callable[[str, str | None], TunesmithError]
"""Return the error for a message and a help, with the place of the key that names the file."""


@dataclass(frozen=True)
class PythonFile:
    """A parsed file: its sha256, and the names that its top level defines or imports.

    functions: those that `def` and `async def` define, in order. coroutines: those of `async def`.
    """

    path: Path
    sha256: str
    names: frozenset[str]
    functions: tuple[str, ...]
    coroutines: frozenset[str]

    def defines(self, name: str) -> bool:
        """Return True if the file may define a name. `from x import *` may define any."""
        return name in self.names or "*" in self.names


def parse(path: Path) -> PythonFile:
    """Return a parsed file. Raises OSError if it can't be read; SyntaxError or ValueError if it is not Python."""
    source = path.read_bytes()
    module = ast.parse(source)
    nodes = list(_top_level(module.body))
    defined = [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return PythonFile(
        path,
        hashlib.sha256(source).hexdigest(),
        frozenset(name for node in nodes for name in _names(node)),
        tuple(node.name for node in defined),
        frozenset(node.name for node in defined if isinstance(node, ast.AsyncFunctionDef)),
    )


def find(path: Path, name: str, base: Path, error: Error, example: str) -> PythonFile:
    """Return the file that defines a function.

    Args:
        path: the file.
        name: the function.
        base: the folder of the YAML, which the path is relative to.
        error: returns the error to raise.
        example: how to name a function of your own: "./rows.py:name".

    Raises the error if the file is missing, is not Python, or does not define the name, and SafetyError for a file of
    Python's standard library or of an installed package.
    """
    if is_library_file(path):
        refusal = error(
            f"{path} is a file of an installed package", f"write the function in a file of your own: {example}"
        )
        raise SafetyError([replace(problem, code="library-file") for problem in refusal.problems])
    try:
        file = parse(path)
    except OSError as failure:
        help = f"write a path relative to the folder of the YAML, {base}"
        raise error(f"can't be read: {failure}", help) from failure
    except (SyntaxError, ValueError) as failure:
        raise error(f"{path.name} is not valid Python: {failure}", None) from failure
    if not file.defines(name):
        close = nearest(name, file.names)
        listed = ", ".join((file.functions or sorted(file.names))[:FEW])
        raise error(
            f"{path} does not define {name!r}",
            f"did you mean {close!r}?" if close else f"it defines: {listed or 'nothing'}",
        )
    return file


def _top_level(statements: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the top-level statements of a module, also those within if, try and with."""
    for node in statements:
        yield node
        if isinstance(node, ast.If | ast.Try | ast.With):
            handlers = [line for handler in getattr(node, "handlers", ()) for line in handler.body]
            others = [*getattr(node, "orelse", ()), *getattr(node, "finalbody", ())]
            yield from _top_level([*node.body, *handlers, *others])


def _names(node: ast.stmt) -> Iterator[str]:
    """Yield the names that a statement defines or imports."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Assign):
        parts = [part for target in node.targets for part in ast.walk(target)]
        yield from (part.id for part in parts if isinstance(part, ast.Name))
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        yield node.target.id
    elif isinstance(node, ast.Import | ast.ImportFrom):
        yield from ((alias.asname or alias.name).partition(".")[0] for alias in node.names)
