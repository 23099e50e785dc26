"""A raw row of a dataset, which knows its place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunesmith.errors import DataError


class Row(dict[str, Any]):
    """One raw row; `where` is its place, "file:line" or "dataset#index"."""

    __slots__ = ("where",)

    def __init__(self, record: Mapping[str, Any], where: str):
        super().__init__(record)
        self.where = where

    def error(self, field: str, message: str, help: str | None = None) -> DataError:
        """The error to raise when `field` of this row can't be used."""
        return DataError(f"{field}: {message}", where=self.where, help=help, code="row")

    def require(self, field: str, kind: type = str) -> Any:
        """The value of a field that has to be there. Raises DataError naming the columns found where it is not."""
        if field not in self:
            columns = ", ".join(map(str, self)) or "none"
            raise self.error(field, f"no such column; found: {columns}", "name the column in the dataset's entry")
        if not isinstance(self[field], kind):
            raise self.error(field, f"is {type(self[field]).__name__}, not {kind.__name__}")
        return self[field]
