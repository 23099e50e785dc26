"""Prepare examples from the rows of `datasets:`: lengths, counts, held-out split, cache."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from tunesmith.config.config import DatasetSpec
from tunesmith.errors import ConfigError, DataError, PluginError
from tunesmith.files.row import Row, Source
from tunesmith.files.unread import Watched, note_unread, watched
from tunesmith.first_rows import note_of
from tunesmith.printable import printable
from tunesmith.run import Run
from tunesmith_engine.batch.examples import Example, ExampleStore
from tunesmith_engine.batch.media import NO_MEDIA, describe
from tunesmith_engine.data.cache import Counts, Prepared, cached, keep, noting, read, shared
from tunesmith_engine.data.fingerprint import fingerprint as make_fingerprint
from tunesmith_engine.data.lengths import completion_length, excess_strategy, fit
from tunesmith_engine.data.progress import Progress
from tunesmith_engine.data.rows import filtered, fingerprints, read_all
from tunesmith_engine.data.suspicious import Suspicions, has_equal_answers, note_trained_on


def prepare(run: Run) -> Prepared:
    """Read, tokenize and split the data of a run, or take it from the cache. Sets run.tokenizer and run.data.

    Raises ConfigError or DataError for data that can't be trained on.
    """
    core = run.core
    if not run.config.datasets and not run.config.streamed and run.purpose == "train":
        where = run.config.place(())
        raise ConfigError("there is nothing to train on", where=where, help="write datasets: ...", code="no-data")
    if run.tokenizer is None:
        run.progress("loading the tokenizer")
        run.tokenizer = run.hooks.load_tokenizer(run)
    run.progress("reading rows")
    raw = read_all(run)
    sources, raw_fingerprints = filtered(run, raw), fingerprints(raw)
    # Rows are hashed before and after filters: a filter's settings are in the makers, but what it reads is not.
    fingerprint = make_fingerprint(run, [raw_fingerprints, fingerprints(sources)])
    # 20 hex digits are 80 bits: two of a million folders share a name with a probability below 1e-12.
    folder = Path(core.dataset_prepared_path) / fingerprint[:20] if core.dataset_prepared_path and sources else None
    if folder and None in raw_fingerprints:
        run.note("prepared data", "not kept: the rows of a dataset have no fingerprint, so changes would go unnoticed")
        folder = None
    build = partial(_build, run, sources, fingerprint)
    if folder is not None:
        with run.world.main_first():
            run.data = cached(run, folder, fingerprint)
            if run.data is None:
                keep(run, folder, *noting(run, build))
                run.data = read(run, folder, fingerprint, cached=False)
    elif run.world.size > 1 and sources:
        run.data = shared(run, fingerprint, build)
    else:
        run.data = build()
    for spec in run.config.entries:
        run.notes.pop(note_of(spec), None)  # the counts say the same of all rows
    for name, counts in run.data.counts.items():
        counts.report(run, name)
    run.progress("")
    return run.data


def _build(run: Run, sources: list[Source], fingerprint: str) -> Prepared:
    """Build the examples of all entries, and hold some out. Raises DataError if nothing of an entry is trained."""
    train: list[Example] = []
    held: list[Example] = []
    counts: dict[str, Counts] = {}
    for source in sources:
        spec, entry_counts = source.spec, Counts()
        # Closed at once if a row is refused: a traceback would keep it, and the thread that watches for slow rows.
        with contextlib.closing(_reporting(run, source, _examples(run, source, entry_counts))) as built:
            examples = list(_with_equal_names(source, built, (train or held)[:1]))
        (held if spec.group == "test_datasets" else train).extend(examples)
        if not entry_counts.kept:
            raise _nothing_left(run, spec, entry_counts)
        counts[printable(f"{spec.group}[{spec.index}] {spec.settings.path}")] = entry_counts
    if run.core.val_set_size:
        # Rows are drawn, not examples: pieces of a split row, which may repeat each other, stay on one side.
        rows = list(dict.fromkeys(e.origin for e in train))
        drawn = {rows[i] for i in held_out(len(rows), run.core.val_set_size, run.core.seed)}
        train, held = [e for e in train if e.origin not in drawn], [e for e in train if e.origin in drawn]
        if not train:
            message = f"val_set_size leaves none of {len(held):,} examples to train on"
            raise ConfigError(message, where=run.config.place("val_set_size"), help="write val_set_size: 0.05")
    note_trained_on(run, train, held)
    trained = ExampleStore.collect(train) if run.config.datasets else None
    return Prepared(trained, ExampleStore.collect(held) if held else None, counts, fingerprint)


def _examples(run: Run, source: Source, counts: Counts) -> Iterator[Example]:
    """Return the examples of an entry as an iterator. dataset_num_proc processes build them."""
    from tunesmith_engine.data import workers

    processes = run.core.dataset_num_proc
    if processes > 1 and not workers.available():
        run.note("dataset_num_proc", "this system can't fork, so one process tokenizes")
        processes = 1
    if processes == 1:
        return _shown(run, source, counts)
    return workers.examples_by(processes, run, source.spec, source.rows, counts)


def _shown(run: Run, source: Source, counts: Counts) -> Iterator[Example]:
    """Yield the examples of an entry; the main process prints a line if one row takes long."""
    progress = Progress(f"{source.spec.group}[{source.spec.index}] {source.spec.settings.path}")
    with progress.shown(stuck=True) if run.world.main else contextlib.nullcontext():
        yield from examples_of(run, source.spec, progress.of(source.rows), counts)


def _reporting(run: Run, source: Source, examples: Iterable[Example]) -> Generator[Example]:
    """Yield the examples, and report how many of the rows they come from are done."""
    phase, rows = f"tokenizing {source.spec.settings.path}", getattr(source.rows, "number", None)
    run.progress(phase, 0, rows)
    for example in examples:
        run.progress(phase, example.origin[1] + 1, rows)
        yield example


def _with_equal_names(source: Source, examples: Iterable[Example], earlier: list[Example]) -> Iterator[Example]:
    """Yield the examples. Raise DataError at the first whose columns or model inputs are not those of the others.

    A method would have no value of the column for it, and a model no input. `earlier` is an example of another entry,
    if there is one.
    """
    first = earlier[0] if earlier else None
    for example in examples:
        first = first or example
        for kind, own, others in (
            ("column", example.columns, first.columns), ("model input", example.inputs, first.inputs)
        ):  # fmt: skip
            if own.keys() != others.keys():
                name = sorted(own.keys() ^ others.keys())[0]
                here, there = ("a", "none") if name in own else ("no", "one")
                owner = "an earlier entry" if earlier else "an earlier row"
                row = next(islice(source.rows, example.origin[1], None))  # examples have a number, rows their place
                message = f"this row has {here} {kind} {name!r}, but {owner} has {there}"
                help = f"give every row of a run the {kind}, or no row"
                raise DataError(message, where=row.where, code="row", help=help)
        yield example


def examples_of(run: Run, spec: DatasetSpec, rows: Iterable[Row], counts: Counts) -> Iterator[Example]:
    """Yield the examples of a dataset entry within sequence_len, lazily, and update `counts`.

    Raises PluginError if the strategy does not build one example for each row, what `fit` raises, and DataError for a
    row with media or without a column of `keep:`.
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

    for number, example in enumerate(run.hooks.build_dataset(run, spec, noting())):
        if not ahead:
            raise _not_one_each(spec, "yields more examples than rows")
        where, kept, suspicious, notices, row = ahead.popleft()
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


def held_out(rows: int, size: float, seed: int) -> list[int]:
    """Draw the numbers of the held-out rows: a share of all rows if `size` is below 1, otherwise that many."""
    number = max(round(rows * size) if size < 1 else int(size), 1)
    return np.random.default_rng([seed, 1]).permutation(rows)[:number].tolist()


def _nothing_left(run: Run, spec: DatasetSpec, counts: Counts) -> DataError:
    if not counts.rows:
        return DataError(f"{spec.settings.path} has no rows", where=spec.where, code="no-rows")
    first = next((counts.first[o] for o in ("untrained", "equal", "too_long") if o in counts.first), [])
    help = "raise sequence_len, or write excess_length_strategy: truncate"
    if counts.untrained:
        help = "tunesmith preprocess --debug shows why each token is trained or masked"
    return DataError(
        f"nothing is left of {spec.settings.path}: of {counts.rows} rows {counts.untrained} have no trained token and "
        f"{counts.too_long} are longer than sequence_len {run.core.sequence_len}"
        + (f", and {counts.equal} pairs have equal answers up to there" if counts.equal else "")
        + f"; first: {', '.join(first)}",
        where=spec.where,
        code="nothing-trained",
        help=help,
    )
