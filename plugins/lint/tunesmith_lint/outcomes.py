"""What becomes of each row of an entry: an example, or the problem that its strategy has with it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from tunesmith import DataError, DatasetSpec, Example, PluginError, Problem, Row, Run

STOPPED = "too-many-refused"
MOST = 500
"""Refused rows of an entry after which the rest of it is not looked at: each costs a new start of the strategy."""


class Ahead:
    """The rows of an entry as a strategy reads them. Those that it has read and not answered yet are given to the next
    one again; where reading them fails, they end, and `fault` says why."""

    def __init__(self, rows: Iterable[Row]):
        self.rows = iter(rows)
        self.waiting: deque[Row] = deque()
        self.fault: DataError | None = None

    def __iter__(self) -> Iterator[Row]:
        yield from list(self.waiting)
        while True:
            try:
                row = next(self.rows)
            except StopIteration:
                return
            except DataError as error:
                self.fault = error
                self.rows = iter(())
                return
            self.waiting.append(row)
            yield row

    def without(self, where: str | None, last: bool = False) -> bool:
        """Leave out the row at a place, and with `last` all after it; whether it was among those that wait."""
        found = next((number for number, row in enumerate(self.waiting) if row.where == where), None)
        if found is None:
            return False
        rows = list(self.waiting)
        self.waiting = deque(rows[:found] + ([] if last else rows[found + 1 :]))
        if last:
            self.rows = iter(())
        return True


def outcomes(run: Run, spec: DatasetSpec, rows: Iterable[Row]) -> Iterator[tuple[Row, Example] | Problem]:
    """Each row with its example, in order; a row that can't be used, and what is wrong with the entry, as a Problem.

    After a row that is refused the strategy starts again behind it. Raises what is no fault of the data.
    """
    ahead = Ahead(rows)
    refused = 0
    while True:
        try:
            for example in run.hooks.build_dataset(run, spec, ahead):
                if not ahead.waiting:
                    raise PluginError(f"plugin {spec.strategy} gives more examples than rows", where=spec.where)
                yield ahead.waiting.popleft(), example
            break
        except DataError as error:
            known = [problem for problem in error.problems if ahead.without(problem.where, refused == MOST - 1)]
            if not known:
                if not refused:  # of what it misses in all rows, a strategy that saw only the last knows nothing
                    yield from error.problems
                break
            yield from known
            refused += 1
    if refused >= MOST:
        said = f"{MOST:,} rows are refused; those after them were not looked at"
        yield Problem(said, spec.where, STOPPED)
    if ahead.fault is not None:
        yield from ahead.fault.problems
