"""Rows to examples by a function of your own: in a file that the YAML names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from tunesmith import Plugin, Settings, hookimpl

if TYPE_CHECKING:
    from tunesmith import DatasetSpec, Example, Row, Run


class FunctionDataset(Settings):
    """Further keys of a `datasets:` entry whose type is a function."""

    arguments: dict[str, Any] = {}
    """Keyword arguments that the function gets beside the row."""
    function_sha256: str | None = None
    """sha256 of the file that the function is in; another file is refused where it is set."""


ROWS = ("conversation", "text", "pair", "labelled", "prompt", "stepwise")
"""Row kinds: what a function returns for each is in shapes.py."""

plugin = Plugin(strategies={kind: ("function",) for kind in ROWS}, dataset_settings=FunctionDataset)


@hookimpl
def inspect(run: Run) -> None:
    """The file is there and has the function; prepared data is known by what is in it."""
    from tunesmith_functions.find import find_all

    find_all(run)


@hookimpl
def build_dataset(run: Run, spec: DatasetSpec, rows: Iterable[Row]) -> Iterator[Example]:
    from tunesmith_functions.call import examples

    return examples(run, spec, rows)
