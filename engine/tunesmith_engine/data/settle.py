"""Turn shards into prepared data: check them in the order of the rows, add up counts, hold examples out, merge."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.config.config import DatasetSpec
from tunesmith.errors import ConfigError, DataError
from tunesmith.files.row import Source
from tunesmith.printable import printable
from tunesmith.redact import clean
from tunesmith.run import Run
from tunesmith_engine.data import shards
from tunesmith_engine.data.cache import Counts
from tunesmith_engine.data.merging import Layout, StoreWriter
from tunesmith_engine.data.shards import Failure, Meta, Names, Shards
from tunesmith_engine.data.suspicious import note_trained_on


class Missing(Exception):
    """Blocks are not sealed although no process reported an error, or a shard can't be read: build them again."""


@dataclass
class Summary:
    """The totals of all shards. rows: rows of `datasets:` that have examples. parts: of each block of each entry,
    the number of its parts. notes: by the process that added them."""

    counts: dict[str, Counts] = field(default_factory=dict)
    layout: Layout = field(default_factory=Layout)
    rows: int = 0
    parts: list[list[int]] = field(default_factory=list)
    notes: dict[str, dict[str, Any]] = field(default_factory=dict)


def settle(run: Run, sources: list[Source], store: Shards, folder: Path, before: dict[str, Any]) -> None:
    """Write the prepared data of shards into a folder, and add the notes of their processes to the run.

    before: the notes of the run before it prepared data. Raises the error of the first row that has one, DataError if
    nothing of an entry is trained, and Missing.
    """
    summary = summarize(run, sources, store)
    for session, notes in summary.notes.items():
        for name, value in notes.items() if session != store.session else ():
            earlier = run.notes.get(name)  # of another process, about other rows
            run.notes[name] = value if earlier in (None, value) else f"{earlier}; and {value}"
    merge(run, sources, store, summary, folder)
    if (folder / "train").exists() and (folder / "eval").exists():
        note_trained_on(run, folder / "train", folder / "eval")
    notes = {name: value for name, value in run.notes.items() if before.get(name) != value}
    (folder / "notes.json").write_text(json.dumps(clean(notes), default=str), encoding="utf-8")
    counts = {name: asdict(entry) for name, entry in summary.counts.items()}
    (folder / "counts.json").write_text(json.dumps(clean(counts), indent=1), encoding="utf-8")


def summarize(run: Run, sources: list[Source], store: Shards) -> Summary:
    summary, first = Summary(), None
    failures = {failure.place: failure for failure in reversed(store.failures())}
    for entry, source in enumerate(sources):
        counts, parts, held = Counts(), list[int](), 0
        for block, metas, failure in _blocks(store, entry, failures):
            named = [(m.first, m.names) for m in metas if m.names] + (failure.names if failure else [])
            for row, names in named:
                first = first or (entry, names)
                if names != first[1]:
                    raise unequal(source, row, names, first[1], first[0] != entry)
            if failure is not None:
                raise _error(store, failure)
            for meta in metas:
                summary.layout.add(meta)
                held += meta.rows
                summary.notes.setdefault(meta.session, {}).update(meta.notes)
            counts.add(Counts(**metas[-1].counts))
            assert block == len(parts)
            parts.append(len(metas))
        if not counts.kept:
            raise nothing_left(run, source.spec, counts)
        summary.rows += held if source.spec.group != "test_datasets" else 0
        summary.parts.append(parts)
        summary.counts[printable(f"{source.spec.group}[{source.spec.index}] {source.spec.settings.path}")] = counts
    return summary


def _blocks(
    store: Shards, entry: int, failures: dict[tuple[int, int], Failure]
) -> Iterator[tuple[int, list[Meta], Failure | None]]:
    """Yield number, parts and error of each block of an entry. Raises Missing, or the first error after a gap."""
    rows = store.rows(entry)
    block = 0
    while rows is None or block * shards.ROWS_PER_BLOCK < rows or (entry, block) in failures:
        failure, metas = failures.get((entry, block)), store.metas(entry, block)
        if metas is None and failure is None:
            if failures:
                raise _error(store, failures[min(failures)])
            raise Missing
        yield block, metas or [], failure
        block += 1


def _error(store: Shards, failure: Failure) -> BaseException:
    if store.raised is not None and store.raised[0].place == failure.place:
        return store.raised[1]
    return failure.as_error()


def merge(run: Run, sources: list[Source], store: Shards, summary: Summary, folder: Path) -> None:
    """Write the folders `train` and `eval`."""
    drawn = None
    if run.core.val_set_size:
        drawn = np.zeros(summary.rows, np.bool_)
        drawn[held_out(summary.rows, run.core.val_set_size, run.core.seed)] = True
    train = StoreWriter(folder / "train", summary.layout) if run.config.datasets else None
    held = StoreWriter(folder / "eval", summary.layout)
    before = 0  # rows of earlier parts that have examples
    done, total = 0, sum(map(len, summary.parts))
    for entry, source in enumerate(sources):
        for block, parts in enumerate(summary.parts[entry]):
            run.progress("merging", done, total)
            done += 1
            for part in range(parts):
                arrays = store.read(entry, block, part)
                if arrays is None:
                    store.remove(entry, block)
                    raise Missing
                if source.spec.group == "test_datasets":
                    held.append(arrays)
                    continue
                assert train is not None
                if drawn is None:
                    train.append(arrays)
                    continue
                rows = arrays["origin"][:, 1]
                if not len(rows):
                    continue
                # Rows are drawn, not examples: pieces of a split row, which may repeat each other, stay on one side.
                number = before + np.cumsum(np.concatenate([[0], rows[1:] != rows[:-1]]))
                before = int(number[-1]) + 1
                train.append(arrays, ~drawn[number])
                held.append(arrays, drawn[number])
    for writer in (train, held):
        if writer is not None:
            writer.close()
    if train is not None and not train.examples:
        message = f"val_set_size leaves none of {held.examples:,} examples to train on"
        raise ConfigError(message, where=run.config.place("val_set_size"), help="write val_set_size: 0.05")
    if not held.examples:
        held.delete()


def held_out(rows: int, size: float, seed: int) -> NDArray[np.uint32]:
    """Draw the numbers of the held-out rows: a share of all rows if `size` is below 1, otherwise that many."""
    number = max(round(rows * size) if size < 1 else int(size), 1)
    order = np.arange(rows, dtype=np.uint32)
    np.random.default_rng([seed, 1]).shuffle(order)  # the same draws as permutation(rows), in 4 bytes each
    return order[:number]


def unequal(source: Source, number: int, names: Names, others: Names, another_entry: bool) -> DataError:
    """Return the error for a row whose columns or model inputs are not those of the rows before it.

    A method would have no value of the column for it, and a model no input.
    """
    kind = 0 if names[0] != others[0] else 1
    name = sorted(set(names[kind]) ^ set(others[kind]))[0]
    here, there = ("a", "none") if name in names[kind] else ("no", "one")
    what, owner = ("column", "model input")[kind], "an earlier entry" if another_entry else "an earlier row"
    row = next(islice(source.rows, number, None))  # examples have a number, rows their place
    message = f"this row has {here} {what} {name!r}, but {owner} has {there}"
    help = f"give every row of a run the {what}, or no row"
    return DataError(message, where=row.where, code="row", help=help)


def nothing_left(run: Run, spec: DatasetSpec, counts: Counts) -> DataError:
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
