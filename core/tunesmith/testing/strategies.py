"""Checks of prompt strategies: one example for each row, the same each time, and errors with the place of the row."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.api import prepare
from tunesmith.errors import DataError, TunesmithError
from tunesmith.files.row import Row
from tunesmith.testing import running
from tunesmith.testing.checks import Failure, check
from tunesmith.testing.rows import Records, shapes, write_rows
from tunesmith.testing.subject import ROWS, Subject

WRONG: tuple[Any, ...] = (None, 7, {"unknown": 1}, [3])
"""Values that a column of texts, messages or labels does not have."""
PLACE = "rows.jsonl:2"
CHANGE = "raise row.error(column, message), or read the column with row.require(column)"


@dataclass(frozen=True)
class Entry:
    """A `type:` with a run that has a dataset entry of it, rows that it accepts, and their examples."""

    kind: str
    type: str
    run: Any
    records: Records
    examples: list[Any]

    def build(self, rows: list[Row]) -> list[Any]:
        """Return the examples of rows."""
        return running.examples(self.run, self.run.config.datasets[0], rows)


def entries(subject: Subject) -> list[Entry]:
    """Return an entry for each type that a plugin answers, by row kind.

    Raises Failure if the strategy accepts no rows that the kit has.
    """
    if "entries" not in subject.cache:
        strategies = subject.info["strategies"].items()
        subject.cache["entries"] = [_accepted(subject, kind, type_) for kind, types in strategies for type_ in types]
    result: list[Entry] = subject.cache["entries"]
    return result


def _accepted(subject: Subject, kind: str, type_: str) -> Entry:
    """Return a run with an entry of a type, and the first rows that the strategy accepts."""
    own = subject.setup.rows.get(type_) or subject.setup.rows.get(kind)
    candidates = [own] if own else list(shapes(kind, ROWS, seed=3))
    stem = re.sub(r"\W+", "-", f"type-{kind}-{type_}")
    run = running.checked(subject.write_entry(stem, kind, type_), check_rows=False)
    errors = []
    for records in candidates:
        try:
            examples = running.examples(run, run.config.datasets[0], _placed(records))
            if len(examples) == len(records):
                return Entry(kind, type_, run, records, examples)
            errors.append("not one example for each row")
        except TunesmithError as error:
            errors.append(str(error).splitlines()[0])
    change = f"pass rows that it reads: Setup(rows={{{type_!r}: [...]}}); if it should read these, fix the strategy"
    raise Failure(f"type {type_} accepts none of the kit's {kind} rows: {errors[-1]}", change)


def _placed(records: Records) -> list[Row]:
    return [Row(record, where=f"rows.jsonl:{number}") for number, record in enumerate(records, 1)]


@check("strategy")
def one_example_for_each_row(subject: Subject) -> None:
    """Check that a strategy yields one example for each row, and something of it is trained, for each of its types."""
    for entry in entries(subject):
        if not any(e.trained_tokens or len(e.segments) == 1 for e in entry.examples):
            message = f"type {entry.type}, {entry.kind} rows: no token of any row is trained"
            raise Failure(message, "set the weights of the segments")


@check("strategy")
def same_examples_each_time(subject: Subject) -> None:
    """Check that the same rows give the same examples each time, and a row's example does not depend on other rows."""
    for entry in entries(subject):
        placed = _placed(entry.records)
        first, again = (list(map(running.content, e)) for e in (entry.examples, entry.build(placed)))
        (alone,) = map(running.content, entry.build(placed[2:3]))
        if first != again or first[2] != alone:
            number = next((n for n, (a, b) in enumerate(zip(first, again, strict=True), 1) if a != b), 3)
            change = "keep no state between rows, and draw random numbers from the row and the seed"
            raise Failure(f"type {entry.type}: row {number} gives another example the second time, or alone", change)


@check("strategy")
def first_row_is_checked(subject: Subject) -> None:
    """Check that check_row, if it is implemented, accepts the rows that build_dataset accepts, and refuses others."""
    for entry in entries(subject):
        hooks, spec = entry.run.hooks, entry.run.config.datasets[0]
        if not hooks.answers("check_row", spec.strategy):
            continue
        for row in _placed(entry.records):
            try:
                hooks.check_row(entry.run, spec, row)
            except TunesmithError as error:
                message = f"type {entry.type}: check_row refuses a row that build_dataset accepts: {error}"
                raise Failure(message, "call the function with which build_dataset reads a row") from error
        try:
            hooks.check_row(entry.run, spec, Row({}, where=PLACE))
        except DataError:
            continue
        raise Failure(f"type {entry.type}: check_row accepts a row without columns", CHANGE)


@check("strategy")
def errors_of_rows(subject: Subject) -> None:
    """Check that a row that can't be used is a DataError with the row's file and line, and the field at fault."""
    for entry in entries(subject):
        record = entry.records[1]
        if _error_of(entry, "without columns", {}) is None:
            raise Failure(f"type {entry.type}: a row without columns is accepted", CHANGE)
        for column in _columns_read(entry, record):
            without = {key: value for key, value in record.items() if key != column}
            _error_of(entry, f"without {column}", without)
            for value in WRONG if entry.type == subject.info["strategies"][entry.kind][0] else ():
                _error_of(entry, f"{column}: {value!r}", {**record, column: value})


class _Recording(Row):
    """A row that records which of its columns are read."""

    __slots__ = ("read",)

    def __init__(self, record: Mapping[str, Any], where: str):
        super().__init__(record, where)
        self.read: set[str] = set()

    def __getitem__(self, column: str) -> Any:
        self.read.add(column)
        return super().__getitem__(column)

    def get(self, column: str, default: Any = None) -> Any:
        self.read.add(column)
        return super().get(column, default)


def _columns_read(entry: Entry, record: dict[str, Any]) -> list[str]:
    """Return the columns of a row that the strategy reads; all of them if it reads the row in another way."""
    row = _Recording(record, PLACE)
    entry.build([row])
    return [column for column in record if column in row.read] or list(record)


def _error_of(entry: Entry, case: str, record: dict[str, Any]) -> str | None:
    """Return the message of the DataError for a row, or None if the row is accepted. Raises Failure for others."""
    options = entry.run.config.datasets[0].options
    columns = [*entry.records[1], *(options.model_dump().values() if options else ()), "column"]
    try:
        entry.build([Row(record, PLACE)])
    except DataError as error:
        problem = error.problems[0]
        message = f"type {entry.type}, {case}: {problem.message}"
        if not (problem.where or "").startswith(PLACE):
            raise Failure(f"{message}: its place is {problem.where} instead of {PLACE}", CHANGE) from None
        if not any(isinstance(name, str) and name and name in problem.message for name in columns):
            raise Failure(f"{message}: it names no field", CHANGE) from None
        return problem.message
    except Exception as error:
        message = f"type {entry.type}, {case}: {type(error).__name__} instead of a DataError: {error}"
        raise Failure(message, CHANGE) from None
    return None


@check("strategy")
def same_examples_in_workers(subject: Subject) -> None:
    """Check that several processes build the same examples as one."""
    entry, built = entries(subject)[0], []
    for processes in (1, 2):
        path = subject.write_entry(f"workers-{processes}", entry.kind, entry.type)
        write_rows(Path(entry.run.config.datasets[0].settings.path), entry.records)
        data = prepare(running.checked(path, f"dataset_num_proc={processes}")).data
        assert data is not None and data.train is not None
        built.append([running.content(example) for example in data.train])
    if built[0] != built[1]:
        change = "a strategy runs in a forked process: use no threads, sockets or files that were opened before"
        raise Failure(f"type {entry.type}: two processes build other examples than one", change)
