"""Build the examples of rows: by their strategy, within sequence_len, with every row counted."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from typing import Any

from tunesmith.config.config import DatasetSpec
from tunesmith.errors import DataError, PluginError
from tunesmith.files.row import Row
from tunesmith.files.unread import Watched, note_unread, watched
from tunesmith.run import Run
from tunesmith_engine.batch.examples import Example
from tunesmith_engine.batch.media import NO_MEDIA, describe
from tunesmith_engine.data.cache import Counts
from tunesmith_engine.data.lengths import completion_length, excess_strategy, fit
from tunesmith_engine.data.suspicious import Suspicions, has_equal_answers


def examples_of(run: Run, spec: DatasetSpec, rows: Iterable[Row], counts: Counts) -> Iterator[Example]:
    """Yield the examples of a dataset entry within sequence_len, lazily, and update `counts`.

    Raises PluginError if the strategy does not build one example for each row, what `fit` raises, and DataError for a
    row with media or without a column of `keep:`.
    """
    numbers = count()
    return examples_by_row(run, spec, rows, lambda: (next(numbers), counts))


def examples_by_row(
    run: Run, spec: DatasetSpec, rows: Iterable[Row], next_row: Callable[[], tuple[int, Counts]]
) -> Iterator[Example]:
    """Yield the examples of `examples_of`, with a number and counts for each row from `next_row`.

    `next_row` is called once per row, in their order, after the examples of the row before it were taken.
    """
    # Of each row that the strategy has read: place, kept columns, suspicious parts, notices, and itself only if its
    # columns are watched, because rows of nested lists are slow to keep.
    ahead: deque[tuple[str, dict[str, Any], set[str], list[str], Watched | None]] = deque()
    entry, suspicions = run.config.entries.index(spec), Suspicions(run, spec)
    room = run.core.sequence_len - completion_length(run)

    def noting() -> Iterator[Row]:
        for raw in rows:
            suspicious = suspicions.of_row(raw)
            row = watched(raw, spec.settings.keep)
            kept = {column: raw.json_value(column) for column in spec.settings.keep}
            ahead.append((row.where, kept, suspicious, row.notices, row if isinstance(row, Watched) else None))
            yield row

    for example in run.hooks.build_dataset(run, spec, noting()):
        if not ahead:
            raise _not_one_each(spec, "yields more examples than rows")
        where, kept, suspicious, notices, row = ahead.popleft()
        number, counts = next_row()
        if row is not None:
            note_unread(row)
        _check(spec, example, kept, where)
        counts.rows += 1
        for text in notices:
            counts.notice(text, where)
        example.fields = {**example.fields, **kept}
        is_pair = spec.row_kind == "pair"
        pieces, outcome = fit(example, room, excess_strategy(run, spec), where)
        # An example of a prompt alone has no trained tokens yet: its completions are generated in a round.
        is_prompt = len(example.segments) == 1
        if outcome:
            counts.mention(outcome, where)
        if outcome == "too_long":
            continue
        lost = any(map(untrained_side, pieces)) if is_pair else not any(p.trained_tokens for p in pieces)
        if not is_prompt and lost:
            counts.mention("untrained", where)
            continue
        if outcome == "truncated" and is_pair and has_equal_answers(pieces[0]):
            counts.mention("equal", where)
            continue
        counts.kept += 1
        for reason in sorted(suspicious | suspicions.of_example(example)):
            counts.mention(reason, where)
        for piece in pieces:
            if is_prompt or piece.trained_tokens:
                counts.examples += 1
                counts.tokens += piece.width
                counts.trained_tokens += piece.trained_tokens
                piece.origin = (entry, number)
                yield piece
    if ahead:
        raise _not_one_each(spec, f"yields no example for {ahead[0][0]}")


def _check(spec: DatasetSpec, example: Example, kept: dict[str, Any], where: str) -> None:
    """Raise DataError for an example with media, without trained tokens in one answer, or with another field `kept`."""
    if example.media:
        raise DataError(describe(example.media), where=where, code="row", help=NO_MEDIA)
    if both := sorted(column for column in kept if example.fields.get(column, kept[column]) != kept[column]):
        message = f"{both[0]}: {spec.strategy} sets a field of this name to another value than the column's"
        raise DataError(message, where=where, code="row", help=f"remove {both[0]} from keep")
    if spec.row_kind == "pair" and example.trained_tokens and (side := untrained_side(example)):
        help = "drop the row, or fix what masks all tokens of the answer"
        raise DataError(f"the {side} answer has no trained token", where=where, code="row", help=help)


def _not_one_each(spec: DatasetSpec, problem: str) -> PluginError:
    message = f"plugin {spec.strategy} {problem} of {spec.settings.path}: a strategy yields one example for each row"
    help = "for a row that is not trained on, yield an example whose weights are all 0"
    return PluginError(message, where=spec.where, help=help)


def untrained_side(example: Example) -> str | None:
    """Return which answer of a pair has no trained token, chosen or rejected; None if both have some."""
    sides = zip(("chosen", "rejected"), example.segments[1:], strict=False)
    return next((side for side, answer in sides if not answer.weights.any()), None)
