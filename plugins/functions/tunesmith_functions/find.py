"""Where the function of an entry is; looked at without running it."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tunesmith import ConfigError, DatasetSpec, Problem, Run
from tunesmith.discovery import nearest
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
    path, name = parts(str(spec.settings.type))
    try:
        file = file_of(path, run.config.base)
        source = file.read_bytes()
        names = set(top_level(ast.parse(source)))
    except (OSError, ImportError) as error:
        help = f"a file is named relative to the YAML ({run.config.base}); a module is one of there, or installed"
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


def parts(type_name: str) -> tuple[str, str]:
    """File or module, and the name in it."""
    path, colon, name = type_name.rpartition(":")
    if not colon:
        path, _, name = type_name.rpartition(".")
    return path, name


def file_of(path: str, base: Path) -> Path:
    """The file that a path or a module is in. Raises OSError, ImportError."""
    if path.endswith(".py"):
        return (base / path).resolve()
    with importing_from(base):
        spec = importlib.util.find_spec(path)
    if spec is None or not spec.origin:
        raise ImportError(f"no module {path!r}")
    return Path(spec.origin)


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
    """Modules beside the YAML are found, before installed ones, within the block."""
    sys.path.insert(0, str(base))
    try:
        yield
    finally:
        sys.path.remove(str(base))
