"""Find the function of an entry by parsing its file, without running it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from tunesmith import ConfigError, DatasetSpec, Problem, Run
from tunesmith.files import functions
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
    path, name = file_and_name(spec, run.config.base)
    error = partial(run.config.error, place)
    file = functions.find(path, name, run.config.base, error, "./rows.py:name")
    if name in file.coroutines:
        raise error(f"{name} is an async function, which can't build rows", f"write def {name}(row)")
    if options.function_sha256 not in (None, file.sha256):
        key = (spec.group, spec.index, "function_sha256")
        raise run.config.error(
            key, f"{path} has sha256 {file.sha256}", "review the changes to the file, then write this value"
        )
    return file.sha256


def file_and_name(spec: DatasetSpec, base: Path) -> tuple[Path, str]:
    """Return the file that an entry's `type: ./file.py:name` points to, relative to the YAML, and the name in it."""
    path, _, name = str(spec.settings.type).rpartition(":")
    return (base / path).resolve(), name


@contextmanager
def importing_from(base: Path) -> Iterator[None]:
    """Put the folder of the YAML first on the import path within the block, for imports of the function's file."""
    sys.path.insert(0, str(base))
    try:
        yield
    finally:
        sys.path.remove(str(base))
