"""Rows that are Python values, with a fingerprint of their content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from tunesmith import DataError, Row

if TYPE_CHECKING:
    from tunesmith import DatasetSpec, Run


class GivenRows:
    """Rows with the place `rows://NAME#N`, of which the first is number 1.

    Args:
        path: the path of the entry, `rows://NAME`.
        rows: mappings of columns.
    """

    def __init__(self, path: str, rows: Iterable[Mapping[str, Any]]):
        self.path, self.rows = path, rows

    @property
    def fingerprint(self) -> str | None:
        """A hash of the rows; None if a value is not one that JSON has, so that prepared data is not kept."""
        own = getattr(self.rows, "_fingerprint", None)
        if isinstance(own, str):  # a datasets.Dataset knows the operations that it comes from
            return own
        digest = hashlib.sha256()
        try:
            for row in self.rows:
                digest.update(json.dumps(dict(row), sort_keys=True).encode() + b"\n")
        except (TypeError, ValueError, RecursionError):
            return None
        return digest.hexdigest()

    def __iter__(self) -> Iterator[Row]:
        for number, row in enumerate(self.rows, 1):
            where = f"{self.path}#{number}"
            if not isinstance(row, Mapping):
                message = f"a row is a mapping of columns, not of the type {type(row).__name__}"
                raise DataError(message, where=where, help='pass rows such as {"messages": [...]}', code="row")
            yield Row(row, where)


def given(run: Run, spec: DatasetSpec) -> GivenRows:
    """Return the rows of an entry. Raises DataError if they can't be read, or only once."""
    path = spec.settings.path
    rows = run.given_rows[path.removeprefix("rows://")]
    if not isinstance(rows, Iterable):
        message = f"the rows of {path} are of the type {type(rows).__name__}, which can't be iterated"
        raise DataError(message, where=spec.where, help="pass a list of mappings, or a datasets.Dataset")
    if isinstance(rows, Iterator):
        message = f"the rows of {path} can be read only once, but they are read for each epoch"
        raise DataError(message, where=spec.where, help="pass a list: datasets={'train': list(rows)}")
    return GivenRows(path, rows)
