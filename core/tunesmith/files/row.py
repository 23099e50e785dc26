"""Define raw rows of a dataset with their place, and the source that they come from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunesmith.errors import DataError
from tunesmith.spelling import nearest

if TYPE_CHECKING:
    from tunesmith.config.config import DatasetSpec


KINDS: dict[type, str] = {str: "a string", list: "a list", dict: "a mapping"}
"""Names of types in messages."""


class Row(dict[str, Any]):
    """A raw row: a dict of its columns.

    where: its place, "file:line" or "file#row". Lines and rows are counted from 1. Places within a row, such as
    messages[0], are those of its JSON value, which are counted from 0.
    repeated: keys that one of its objects has twice, of which the last was read.
    padded: it comes from a table such as Arrow's, in which every mapping has the keys of those in all rows, with null
    for its missing ones.
    notices: what a strategy did not use of the row. lint and the summary of a run count the rows with each notice and
    name the first.
    """

    __slots__ = ("notices", "padded", "repeated", "where")

    def __init__(self, record: Mapping[str, Any], where: str, *, repeated: tuple[str, ...] = (), padded: bool = False):
        super().__init__(record)
        self.where = where
        self.repeated = repeated
        self.padded = padded
        self.notices: list[str] = []

    def notice(self, text: str) -> None:
        """Report something about the row without refusing it. Rows with the same text are counted together."""
        if text not in self.notices:
            self.notices.append(text)

    def error(self, field: str, message: str, help: str | None = None) -> DataError:
        """Return the error to raise if a field of this row can't be used. The message follows the field's name."""
        return DataError(f"{field}: {message}", where=self.where, help=help, code="row")

    def require(self, field: str, kind: type = str) -> Any:
        """Return the value of a required field. Raises DataError if the field is missing or of another type."""
        if field not in self:
            raise self.missing(field)
        value = self[field]
        if not isinstance(value, kind):
            actual = "null" if value is None else type(value).__name__
            raise self.error(field, f"must be {KINDS.get(kind, kind.__name__)}, got {actual}")
        if isinstance(value, str) and (problem := flaw(value)):
            raise self.error(field, problem)
        return value

    def json_value(self, field: str) -> Any:
        """Return the value of a field as JSON has it. Raises DataError if it is missing, or not a JSON value."""
        if field not in self:
            raise self.missing(field)
        try:
            return json.loads(json.dumps(self[field], allow_nan=False))
        except (TypeError, ValueError, RecursionError) as error:
            raise self.error(field, f"is not a JSON value: {error}") from None

    def missing(self, field: str) -> DataError:
        """Return the error to raise if a column is missing."""
        columns = list(map(str, self))
        close = nearest(field, columns)
        help: str | None = "name the column in the dataset's entry"
        help = f"is it {close!r}? Then {help}" if close else help if field.isidentifier() else None
        return self.error(field, f"no such column; found: {', '.join(columns) or 'none'}", help)


def without_padding(value: Any) -> Any:
    """Return a copy of a value of a padded row in which no mapping has a key whose value is null."""
    if isinstance(value, Mapping):
        return {key: without_padding(item) for key, item in value.items() if item is not None}
    return [without_padding(item) for item in value] if isinstance(value, list) else value


def flaw(text: str) -> str | None:
    """Return why a text can't be tokenized, or None if it can.

    JSON may escape half of a surrogate pair, such as "\\ud83d". It is not a character, and UTF-8 can't encode it.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"contains {text[error.start]!a} at character {error.start}, which is half of a surrogate pair"
    return None


@dataclass(frozen=True)
class Source:
    """A dataset entry and its rows: an iterable that yields the same rows each time it is iterated."""

    spec: DatasetSpec
    rows: Iterable[Row]
