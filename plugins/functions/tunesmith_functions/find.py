"""Where the function of an entry is; looked at without running it."""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tunesmith import ConfigError, DatasetSpec, Problem, Run, SafetyError
from tunesmith.config.datasets import split_function
from tunesmith.files.paths import is_library_file
from tunesmith.spelling import nearest
from tunesmith_functions import FunctionDataset


def find_all(run: Run) -> None:
    """Check the function of every entry, and put the hash of its file into the entry's options.

    Raises ConfigError with every file that is missing or broken, or lacks the function, or is another than it was.
    """
    problems: list[Problem] = []

    def known(spec: DatasetSpec) -> DatasetSpec:
        if not isinstance(spec.options, FunctionDataset):
            return spec
        try:
            digest = check(run, spec, spec.options)
        except ConfigError as error:
            problems.extend(error.problems)
            return spec
        return replace(spec, options=spec.options.model_copy(update={"function_sha256": digest}))

    run.config.replace_entries(known)
    if problems:
        raise ConfigError(problems)


def check(run: Run, spec: DatasetSpec, options: FunctionDataset) -> str:
    """sha256 of the file of an entry's function. Raises ConfigError."""
    place = (spec.group, spec.index, "type")
    file, name = file_and_name(spec, run.config.base)
    if is_library_file(file):
        help = "write the function in a file of your own: ./rows.py:name"
        message = f"{'.'.join(map(str, place))}: {file} is a file of an installed package"
        raise SafetyError(message, where=run.config.document.where(place, value=True), help=help, code="library-file")
    try:
        source = file.read_bytes()
        names = set(top_level(ast.parse(source)))
    except OSError as error:
        help = f"the path is relative to the YAML: {run.config.base}"
        raise run.config.error(place, f"can't be read: {error}", help) from error
    except (SyntaxError, ValueError) as error:
        raise run.config.error(place, f"{file.name} is no Python: {error}") from error
    if name not in names:
        close = nearest(name, names)
        help = f"did you mean {close!r}?" if close else f"it has: {', '.join(sorted(names)[:8]) or 'nothing'}"
        raise run.config.error(place, f"{file} has no {name!r}", help)
    digest = hashlib.sha256(source).hexdigest()
    if options.function_sha256 not in (None, digest):
        key = (spec.group, spec.index, "function_sha256")
        raise run.config.error(key, f"{file} has sha256 {digest}", "look at what changed, then write that")
    return digest


def file_and_name(spec: DatasetSpec, base: Path) -> tuple[Path, str]:
    """Return the file that an entry's `type: ./file.py:name` points to, relative to the YAML, and the name in it."""
    path, name = split_function(str(spec.settings.type)) or ("", "")
    return (base / path).resolve(), name


def top_level(module: ast.Module) -> Iterator[str]:
    """Names that a module's own statements define or import."""
    for node in module.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from ((alias.asname or alias.name).partition(".")[0] for alias in node.names)


@contextmanager
def importing_from(base: Path) -> Iterator[None]:
    """Let the file of a function import modules beside the YAML, before installed ones, within the block."""
    sys.path.insert(0, str(base))
    try:
        yield
    finally:
        sys.path.remove(str(base))
