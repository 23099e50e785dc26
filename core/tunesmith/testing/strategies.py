"""Checks of prompt strategies: one example for each row, the same each time, and errors with the place of the row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tunesmith.errors import DataError, TunesmithError
from tunesmith.files.row import Row
from tunesmith.testing import running
from tunesmith.testing.checks import Failure, check
from tunesmith.testing.rows import Records, shapes
from tunesmith.testing.subject import ROWS, Subject

WRONG: tuple[Any, ...] = (None, 7, {"unknown": 1}, [3], [])
"""Values that a column of texts, messages or labels does not have."""


def entries(subject: Subject) -> Iterator[tuple[str, str, Any, Records]]:
    """Yield (row kind, type, run, rows) for each type that a plugin answers. `run` has a dataset entry of the type.

    Raises Failure if the strategy accepts no rows that the kit has.
    """
    if "entries" not in subject.cache:
        subject.cache["entries"] = [
            (kind, type_, *_accepted(subject, kind, type_))
            for kind, types in subject.info["strategies"].items()
            for type_ in types
        ]
    yield from subject.cache["entries"]


def _accepted(subject: Subject, kind: str, type_: str) -> tuple[Any, Records]:
    """Return a run with an entry of a type, and the first rows that the strategy accepts."""
    own = subject.setup.rows.get(type_) or subject.setup.rows.get(kind)
    candidates = [own] if own else list(shapes(kind, ROWS, seed=3))
    keys = subject.setup.entries.get(type_, {})
    entry = {**subject.entry(kind), "type": type_, **keys}
    plugins = [f"./{subject.companion('kit_method', f'kit_method_{kind}')}"]
    stem = f"type-{kind}-{type_}".replace(":", "-").replace("/", "-")
    method = {"rl": f"kit_{kind}", "plugins": plugins}
    run = running.checked(subject.write(stem, kind, method, datasets=[entry], test_datasets=None, **subject.setup.keys))
    errors = []
    for records in candidates:
        try:
            if len(running.examples(run, run.config.datasets[0], _placed(records))) == len(records):
                return run, records
            errors.append("not one example for each row")
        except TunesmithError as error:
            errors.append(str(error).splitlines()[0])
    change = f"pass rows that it reads: Setup(rows={{{type_!r}: [...]}}); if it should read these, fix the strategy"
    raise Failure(f"type {type_} accepts none of the kit's {kind} rows: {errors[-1]}", change)


def _placed(records: Records) -> list[Row]:
    return [Row(record, where=f"rows.jsonl:{number}") for number, record in enumerate(records, 1)]


@check("strategy")
def one_example_for_each_row(subject: Subject) -> None:
    """A strategy yields one example for each row, and something of it is trained, for each of its types."""
    for kind, type_, run, records in entries(subject):
        examples = running.examples(run, run.config.datasets[0], _placed(records))
        untrained = [n for n, e in enumerate(examples, 1) if not e.trained_tokens and len(e.segments) > 1]
        if len(untrained) == len(examples):
            raise Failure(f"type {type_}, {kind} rows: no token of any row is trained", "set the weights of segments")


@check("strategy")
def same_examples_each_time(subject: Subject) -> None:
    """The same rows give the same examples each time, and a row's example does not depend on other rows."""
    for _, type_, run, records in entries(subject):
        spec, placed = run.config.datasets[0], _placed(records)
        first = [running.content(example) for example in running.examples(run, spec, placed)]
        again = [running.content(example) for example in running.examples(run, spec, _placed(records))]
        alone = [running.content(e) for row in placed[:3] for e in running.examples(run, spec, [row])]
        if first != again or first[:3] != alone:
            number = next((n for n, (a, b) in enumerate(zip(first, again, strict=True), 1) if a != b), 1)
            change = "keep no state between rows, and draw random numbers from the row and the seed"
            raise Failure(f"type {type_}: row {number} gives another example the second time, or alone", change)


@check("strategy")
def errors_of_rows(subject: Subject) -> None:
    """A row that can't be used is a DataError with the row's file and line, and the field at fault."""
    for _, type_, run, records in entries(subject):
        spec, change = run.config.datasets[0], "raise row.error(column, message), or read it with row.require(column)"
        for column, value, record in _damaged(records[1]):
            damaged = [*_placed(records[:1]), Row(record, where="rows.jsonl:2")]
            what = f"type {type_}, {column} {'missing' if value is ... else repr(value)}"
            try:
                running.examples(run, spec, damaged)
            except DataError as error:
                problem = error.problems[0]
                if not (problem.where or "").startswith("rows.jsonl:2"):
                    raise Failure(f"{what}: the error has the place {problem.where}: {problem.message}", change) from None
                if column and not any(name in problem.message for name in (*records[1], *map(str, _options(spec)))):
                    raise Failure(f"{what}: the error names no field: {problem.message}", change) from None
            except Exception as error:
                raise Failure(f"{what}: {type(error).__name__} instead of a DataError: {error}", change) from None
            else:
                if not column:
                    raise Failure(f"type {type_}: a row without columns is accepted", change)


def _damaged(record: dict[str, Any]) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Yield (column, value, row) for rows with a missing or wrong column; first one without any column."""
    yield "", ..., {}
    for column in record:
        yield column, ..., {key: value for key, value in record.items() if key != column}
        for value in WRONG:
            yield column, value, {**record, column: value}


def _options(spec: Any) -> list[Any]:
    """Return the values of an entry's own keys, which may rename columns."""
    return [value for value in (spec.options.model_dump().values() if spec.options else ()) if isinstance(value, str)]


@check("strategy")
def same_examples_in_workers(subject: Subject) -> None:
    """Several processes build the same examples as one."""
    from tunesmith.api import prepare

    for kind, type_, run, _ in list(entries(subject))[:1]:
        stem = f"workers-{kind}"
        keys = {**subject.setup.keys, "datasets": [{**run.config.document.values["datasets"][0]}]}
        method = {"rl": f"kit_{kind}", "plugins": [f"./kit_method_{kind}.py"]}
        built = []
        for processes in (1, 2):
            path = subject.write(f"{stem}-{processes}", kind, method, test_datasets=None, **keys)
            data = prepare(running.checked(path, f"dataset_num_proc={processes}")).data
            assert data is not None and data.train is not None
            built.append([running.content(example) for example in data.train])
        if built[0] != built[1]:
            change = "a strategy runs in a forked process: use no threads, sockets or files that were opened before"
            raise Failure(f"type {type_}: two processes build other examples than one", change)
