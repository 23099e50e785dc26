"""Build examples with your own function, from a file that the YAML names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from tunesmith import Plugin, Settings, hookimpl

if TYPE_CHECKING:
    from tunesmith import DatasetSpec, Example, Row, Run


class FunctionDataset(Settings):
    """Additional keys of a `datasets:` entry whose type is a function."""

    arguments: dict[str, Any] = {}
    """Keyword arguments that are passed to the function in addition to the row."""
    function_sha256: str | None = None
    """sha256 of the file with the function. If set, a file with another hash is refused."""


ROWS = ("conversation", "text", "pair", "labelled", "prompt", "stepwise")
"""Supported row kinds. shapes.py describes what a function returns for each."""

plugin = Plugin(strategies={kind: ("function",) for kind in ROWS}, dataset_settings=FunctionDataset)


@hookimpl
def inspect(run: Run) -> None:
    """Check that the file exists and defines the function, and add its hash to the fingerprint of prepared data."""
    from tunesmith_functions.find import find_all

    find_all(run)


@hookimpl
def build_dataset(run: Run, spec: DatasetSpec, rows: Iterable[Row]) -> Iterator[Example]:
    from tunesmith_functions.call import examples

    return examples(run, spec, rows)
