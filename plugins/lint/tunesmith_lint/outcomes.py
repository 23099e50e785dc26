"""Run a prompt strategy over all rows of an entry, restarting it after each row that it refuses."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator

from tunesmith import DataError, DatasetSpec, Example, PluginError, Problem, Row, Run
from tunesmith.files.unread import note_unread, watched

STOPPED = "too-many-refused"
MOST = 500
"""Refused rows after which the rest of an entry is skipped. Each refusal costs a restart of the strategy."""


class Pending:
    """The rows of an entry, with those kept that a strategy has read but not yet turned into an example.

    Iterating again, after a restart of the strategy, first yields the kept rows. If reading the rows fails, they end,
    and `read_error` is set.
    """

    def __init__(self, rows: Iterable[Row], keep: Collection[str] = ()):
        self.rows = iter(rows)
        self.keep = keep
        self.waiting: deque[Row] = deque()
        self.read_error: DataError | None = None

    def __iter__(self) -> Iterator[Row]:
        yield from list(self.waiting)
        while True:
            try:
                row = watched(next(self.rows), self.keep)
            except StopIteration:
                return
            except DataError as error:
                self.read_error = error
                self.rows = iter(())
                return
            self.waiting.append(row)
            yield row

    def remove(self, where: str | None, last: bool = False) -> bool:
        """Remove the waiting row with the given place, and all rows after it if `last` is set.

        Return False if no waiting row has that place.
        """
        index = next((number for number, row in enumerate(self.waiting) if row.where == where), None)
        if index is None:
            return False
        rows = list(self.waiting)
        self.waiting = deque(rows[:index] + ([] if last else rows[index + 1 :]))
        if last:
            self.rows = iter(())
        return True


def outcomes(run: Run, spec: DatasetSpec, rows: Iterable[Row]) -> Iterator[tuple[Row, Example] | Problem]:
    """Yield each row with its example, in order, or a Problem for a row or an entry that can't be used.

    After a refused row, the strategy is restarted on the rows that follow. Errors other than DataError are raised.
    """
    pending = Pending(rows, spec.settings.keep)
    refused = 0
    while True:
        try:
            for example in run.hooks.build_dataset(run, spec, pending):
                if not pending.waiting:
                    raise PluginError(f"plugin {spec.strategy} yields more examples than rows", where=spec.where)
                row = pending.waiting.popleft()
                note_unread(row)
                yield row, example
            break
        except DataError as error:
            of_rows = [problem for problem in error.problems if pending.remove(problem.where, refused == MOST - 1)]
            if not of_rows:
                # A problem with the whole entry. A restarted strategy has seen only the last rows, so it may report
                # something as missing from the entry that earlier rows have.
                if not refused:
                    yield from error.problems
                break
            yield from of_rows
            refused += 1
    if refused >= MOST:
        yield Problem(f"{MOST:,} rows are refused; the rows after them were not checked", spec.where, STOPPED)
    if pending.read_error is not None:
        yield from pending.read_error.problems
