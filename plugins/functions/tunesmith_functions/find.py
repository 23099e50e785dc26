"""Find the function of an entry by parsing its file, without running it."""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tunesmith import ConfigError, DatasetSpec, Problem, Run, SafetyError
from tunesmith.files.paths import is_library_file
from tunesmith.spelling import nearest
from tunesmith_functions import FunctionDataset


def find_all(run: Run) -> None:
    """Check the function of every entry, and store the hash of its file in the entry's options.

    Raise ConfigError with every file that is missing, is not valid Python, does not define the function, or has a hash
    other than function_sha256.
    """
    problems: list[Problem] = []

    def with_hash(spec: DatasetSpec) -> DatasetSpec:
        if not isinstance(spec.options, FunctionDataset):
            return spec
        try:
            digest = check(run, spec, spec.options)
        except ConfigError as error:
            problems.extend(error.problems)
            return spec
        return replace(spec, options=spec.options.model_copy(update={"function_sha256": digest}))

    run.config.replace_entries(with_hash)
    if problems:
        raise ConfigError(problems)


def check(run: Run, spec: DatasetSpec, options: FunctionDataset) -> str:
    """Return the sha256 of the file with an entry's function. Raise ConfigError; SafetyError for an installed file."""
    place = (spec.group, spec.index, "type")
    file, name = file_and_name(spec, run.config.base)
    if is_library_file(file):
        help = "write the function in a file of your own: ./rows.py:name"
        message = f"{'.'.join(map(str, place))}: {file} is a file of an installed package"
        raise SafetyError(message, where=run.config.place(place), help=help, code="library-file")
    try:
        source = file.read_bytes()
        module = ast.parse(source)
        names = set(top_level(module.body))
    except OSError as error:
        help = f"write a path relative to the folder of the YAML, {run.config.base}"
        raise run.config.error(place, f"can't be read: {error}", help) from error
    except (SyntaxError, ValueError) as error:
        raise run.config.error(place, f"{file.name} is not valid Python: {error}") from error
    if name not in names and any(isinstance(n, ast.AsyncFunctionDef) and n.name == name for n in ast.walk(module)):
        raise run.config.error(place, f"{name} is an async function, which can't build rows", f"write def {name}(row)")
    if name not in names and "*" not in names:
        close = nearest(name, names)
        help = f"did you mean {close!r}?" if close else f"it defines: {', '.join(sorted(names)[:8]) or 'nothing'}"
        raise run.config.error(place, f"{file} does not define {name!r}", help)
    digest = hashlib.sha256(source).hexdigest()
    if options.function_sha256 not in (None, digest):
        key = (spec.group, spec.index, "function_sha256")
        raise run.config.error(
            key, f"{file} has sha256 {digest}", "review the changes to the file, then write this value"
        )
    return digest


def file_and_name(spec: DatasetSpec, base: Path) -> tuple[Path, str]:
    """Return the file that an entry's `type: ./file.py:name` points to, relative to the YAML, and the name in it."""
    path, _, name = str(spec.settings.type).rpartition(":")
    return (base / path).resolve(), name


def top_level(statements: Iterable[ast.stmt]) -> Iterator[str]:
    """Yield the names that top-level statements of a module define or import, also within if, try and with."""
    for node in statements:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            parts = [part for target in node.targets for part in ast.walk(target)]
            yield from (part.id for part in parts if isinstance(part, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id
        elif isinstance(node, ast.If | ast.Try | ast.With):
            handlers = [line for handler in getattr(node, "handlers", ()) for line in handler.body]
            others = [*getattr(node, "orelse", ()), *getattr(node, "finalbody", ())]
            yield from top_level([*node.body, *handlers, *others])
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from ((alias.asname or alias.name).partition(".")[0] for alias in node.names)


@contextmanager
def importing_from(base: Path) -> Iterator[None]:
    """Put the folder of the YAML first on the import path within the block, for imports of the function's file."""
    sys.path.insert(0, str(base))
    try:
        yield
    finally:
        sys.path.remove(str(base))
