"""Read the first row of each local dataset, and let its strategy check it, before anything heavy is loaded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

from tunesmith.checks import ROWS
from tunesmith.config.config import DatasetSpec
from tunesmith.errors import DataError, Problem, TunesmithError, errors_of
from tunesmith.files.paths import FILE
from tunesmith.files.row import Row
from tunesmith.files.unread import note_unread, watched
from tunesmith.run import Run

SHAPES = {
    "pair": ({"chosen", "rejected"}, {"chosen_response", "rejected_response"}),
    "labelled": ({"label"},),
}
"""Row kind -> columns that show it."""


def check(run: Run) -> list[TunesmithError]:
    """Return the errors of the first rows of files and of Python. Datasets on the hub and behind URLs are not read."""
    local = [spec for spec in run.config.entries if spec.source in (FILE, ROWS.removesuffix("://"))]
    return errors_of(partial(check_entry, run, spec) for spec in local)


def check_entry(run: Run, spec: DatasetSpec) -> None:
    """Raise DataError if the first row of an entry can't be read, or if its strategy refuses the row.

    A filter may drop the row, so with one the refusal is only a warning. What the strategy does not read of the row is
    noted until preparing counts it for all rows.
    """
    row = first_row(run, spec)
    if row is None:
        return
    try:
        for column in spec.settings.keep:
            row.json_value(column)
        if run.hooks.answers("check_row", spec.strategy):
            row = watched(row, spec.settings.keep)
            run.hooks.check_row(run, spec, row)
            note_unread(row)
            if row.notices:
                run.note(note_of(spec), f"{row.where}: {'; '.join(row.notices)}")
    except DataError as error:
        problems = [with_hint(run, spec, row, problem) for problem in error.problems]
        if not run.hooks.has("filter_rows"):
            raise DataError(problems) from error
        for problem in problems:
            run.warn((spec.group, spec.index, "path"), f"{problem} (unless a filter drops the row)")


def note_of(spec: DatasetSpec) -> str:
    """Return the name of the note about the first row of an entry."""
    return f"first row of {spec.group}[{spec.index}] {spec.settings.path}"


def first_row(run: Run, spec: DatasetSpec) -> Row | None:
    """Return the first row of an entry; None if it has none, or if reading it takes long."""
    try:
        rows: Iterable[Row] = run.hooks.load_rows(run, spec)
        first: Any = getattr(rows, "first_row", None)
        if first is not None:
            return first(spec.settings.shards_idx)  # type: ignore[no-any-return]
        return next(islice(rows, spec.settings.shards_idx, None), None)
    except TunesmithError:
        raise
    except Exception as error:  # readers are plugins over files, so any exception may come from them
        message = f"{spec.settings.path} can't be read: {type(error).__name__}: {error}"
        raise DataError(message, where=spec.where, code="unreadable") from error


def with_hint(run: Run, spec: DatasetSpec, row: Row, problem: Problem) -> Problem:
    """Return the problem; if the row has the shape of another kind, with the selector of a method for that kind."""
    kind = kind_of(row)
    if kind is None or kind in run.method.rows or problem.where != row.where:
        return problem
    help = f"the row looks like a {kind} row, but the method trains on {' or '.join(run.method.rows)} rows: "
    methods = [
        c.info for c in run.config.selection.available.values() if kind in (c.info["method"] or {}).get("rows", ())
    ]
    selectors = sorted(f"{key}: {values[0]}" for info in methods for key, values in info["answers"].items())
    own = run.hooks.method_plugin.declaration.answers
    written = [f"{key}: {run.config.document.values[key]}" for key in own if key in run.config.document.values]
    if any(not info["answers"] for info in methods) and written:  # the default method trains on this kind
        help += f"drop {written[0]}, or use rows of another shape"
    else:
        help += f"write {' or '.join(selectors)}" if selectors else "use rows of another shape"
    return replace(problem, help=help)


def kind_of(row: Row) -> str | None:
    """Return the row kind that the columns show: pair, labelled or conversation. None if they show none."""
    for kind, shapes in SHAPES.items():
        if any(shape <= row.keys() for shape in shapes):
            return kind
    for value in row.values():
        messages = isinstance(value, list) and value and all(isinstance(message, dict) for message in value)
        if messages and {"role", "from"} & value[0].keys():
            return "conversation"
    return None
