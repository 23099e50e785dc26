"""Raw rows of a dataset, which know their place, and the source they come from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunesmith.errors import DataError
from tunesmith.spelling import nearest

if TYPE_CHECKING:
    from tunesmith.config.load import DatasetSpec


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
            columns = list(map(str, self))
            close = nearest(field, columns)
            help: str | None = "name the column in the dataset's entry"
            help = f"is it {close!r}? Then {help}" if close else help if field.isidentifier() else None
            raise self.error(field, f"no such column; found: {', '.join(columns) or 'none'}", help)
        value = self[field]
        if not isinstance(value, kind):
            raise self.error(field, f"is {'null' if value is None else type(value).__name__}, not {kind.__name__}")
        if isinstance(value, str) and (why := flaw(value)):
            raise self.error(field, why)
        return value


def flaw(text: str) -> str | None:
    """Why a text can't be tokenised: JSON can write half of a character, which UTF-8 has no bytes for."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"holds {text[error.start]!a} at character {error.start}, which is half of a character"
    return None


@dataclass(frozen=True)
class Source:
    """A dataset entry and its rows: an iterable that can be restarted and then yields the same rows."""

    spec: DatasetSpec
    rows: Iterable[Row]
