"""Build the blocks of a share of the rows, and seal each as a shard."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np

from tunesmith.errors import TunesmithError
from tunesmith.files.row import Row, Source
from tunesmith.run import Run
from tunesmith_engine.batch.examples import Example, ExampleStore
from tunesmith_engine.data import shards
from tunesmith_engine.data.build import examples_by_row
from tunesmith_engine.data.cache import Counts
from tunesmith_engine.data.progress import Progress
from tunesmith_engine.data.shards import Failure, Meta, Names, Shards

LOOK = 2.0
"""Seconds between two looks for an error of another process."""


@dataclass(frozen=True)
class Share:
    """Every `of`-th block, from `index` on. Entries begin at different shares, since most have few blocks."""

    index: int = 0
    of: int = 1

    def owns(self, entry: int, block: int) -> bool:
        return (entry + block) % self.of == self.index


def _is_wanted(share: Share, entry: int, sealed: set[int], block: int) -> bool:
    return share.owns(entry, block) and block not in sealed


def _sealed(on_block: Callable[[], None] | None, watch: _Watch, entry: int, block: int) -> None:
    if on_block is not None:
        on_block()
    watch.look(entry, block)


class Stopped(Exception):
    """Another process has an error at an earlier row."""


def build_share(
    run: Run, sources: list[Source], store: Shards, share: Share, on_block: Callable[[], None] | None = None
) -> None:
    """Build the blocks of a share that are not sealed yet. An error is recorded in the shards, and ends the share.

    on_block: called after each block, by a process that leaves the reports of progress to another one.
    """
    watch, names = _Watch(store, share), None
    for entry, source in enumerate(sources):
        missing = store.missing(entry)
        if missing is not None and not any(share.owns(entry, block) for block in missing):
            continue
        rows = _Selected(source.rows, partial(_is_wanted, share, entry, store.sealed(entry)))
        writer = _Writer(run, store, entry, rows, names)
        writer.on_block = partial(_sealed, on_block, watch, entry)
        try:
            # Closed at once if a row is refused: a traceback would keep it, and the thread that watches for slow rows.
            with contextlib.closing(_examples(run, source, rows, writer, on_block is None)) as examples:
                for example in examples:
                    writer.add(example)
                writer.close()
        except Stopped:
            return
        except (TunesmithError, SystemExit) as raised:
            error = run.hooks.blame(raised) if isinstance(raised, SystemExit) else raised
            problems = [asdict(problem) for problem in error.problems]
            store.fail(Failure(entry, writer.at(), type(error).__name__, problems), error, share.of == 1)
            return
        except _Differing as differing:
            store.fail(Failure(entry, writer.at(), names=differing.names), None, share.of == 1)
            return
        store.finish(entry, rows.read)
        names = writer.names
        if share.of == 1 and not any(m.rows for b in sorted(store.sealed(entry)) for m in store.metas(entry, b) or ()):
            return  # nothing of this entry is left, which is an error


def _examples(run: Run, source: Source, rows: _Selected, writer: _Writer, reports: bool) -> Generator[Example]:
    """Yield the examples of an entry and report progress; the main process prints a line if one row takes long."""
    name, number = source.spec.settings.path, getattr(source.rows, "number", None)
    if not reports:
        yield from examples_by_row(run, source.spec, rows, writer.next_row)
        return
    progress = Progress(f"{source.spec.group}[{source.spec.index}] {name}")
    run.progress(f"tokenizing {name}", 0, number)
    with progress.shown(stuck=True) if run.world.main else contextlib.nullcontext():
        for example in examples_by_row(run, source.spec, progress.of(rows), writer.next_row):
            run.progress(f"tokenizing {name}", example.origin[1] + 1, number)
            yield example


class _Selected:
    """The rows of the wanted blocks. `numbers` are those of the rows that were yielded and not taken from it yet."""

    def __init__(self, rows: Iterable[Row], wanted: Callable[[int], bool]):
        self.rows, self.wanted = rows, wanted
        self.numbers: deque[int] = deque()
        self.read = 0

    def __iter__(self) -> Iterator[Row]:
        wanted = False
        for row in self.rows:
            if self.read % shards.ROWS_PER_BLOCK == 0:
                wanted = self.wanted(self.read // shards.ROWS_PER_BLOCK)
            if wanted:
                self.numbers.append(self.read)
            self.read += 1
            if wanted:
                yield row


class _Differing(Exception):
    """An example has other columns or model inputs than an earlier one of the same process."""

    def __init__(self, names: list[tuple[int, Names]]):
        self.names = names


class _Watch:
    """Looks for an error of another process at an earlier block."""

    def __init__(self, store: Shards, share: Share):
        self.store, self.alone = store, share.of == 1
        self.looked = time.monotonic()

    def look(self, entry: int, block: int) -> None:
        if self.alone or time.monotonic() - self.looked < LOOK:
            return
        self.looked = time.monotonic()
        if any(failure.place < (entry, block) for failure in self.store.failures()):
            raise Stopped


class _Writer:
    """Gathers the examples of a block, and writes it when its last row is done."""

    on_block: Callable[[int], None]
    """Called with the number of a block that is sealed."""

    def __init__(self, run: Run, store: Shards, entry: int, rows: _Selected, names: Names | None):
        self.run, self.store, self.entry, self.rows, self.names = run, store, entry, rows, names
        self.block: int | None = None
        self.notes = dict(run.notes)
        self._begin()

    def _begin(self) -> None:
        self.part, self.tokens, self.counts = 0, 0, Counts()
        self.first: int | None = None
        self.examples: list[Example] = []

    def at(self) -> int:
        """Return the block in progress; before the first row, the first one that is wanted."""
        if self.block is not None:
            return self.block
        return next(block for block in range(1 << 60) if self.rows.wanted(block))

    def next_row(self) -> tuple[int, Counts]:
        """Return the number of the next row, and the counts of its block. The rows before it are done."""
        number = self.rows.numbers.popleft()
        if number // shards.ROWS_PER_BLOCK != self.block:
            self.close()
            self.block = number // shards.ROWS_PER_BLOCK
        elif self.tokens >= shards.TOKENS_PER_PART:
            self._write(last=False)
        return number, self.counts

    def add(self, example: Example) -> None:
        names = (tuple(sorted(example.columns)), tuple(sorted(example.inputs)))
        if names != self.names:
            if self.names is not None:
                first = [] if self.first is None else [(self.first, self.names)]
                raise _Differing([*first, (example.origin[1], names)])
            self.names = names
        if self.first is None:
            self.first = example.origin[1]
        self.examples.append(example)
        self.tokens += example.width

    def close(self) -> None:
        if self.block is not None:
            self._write(last=True)
            self._begin()
            self.on_block(self.block)
            self.block = None

    def _write(self, last: bool) -> None:
        assert self.block is not None
        meta = Meta(last, session=self.store.session)
        if self.examples:
            numbers = np.array([example.origin[1] for example in self.examples])
            meta.names, meta.first = self.names, int(numbers[0])
            meta.rows = 1 + int(np.count_nonzero(np.diff(numbers)))
        if last:
            meta.counts = asdict(self.counts)
            meta.notes = {k: v for k, v in self.run.notes.items() if self.notes.get(k) != v}
            self.notes = dict(self.run.notes)
        self.store.write(self.entry, self.block, self.part, ExampleStore.collect(self.examples), meta)
        self.part, self.tokens, self.examples = self.part + 1, 0, []
