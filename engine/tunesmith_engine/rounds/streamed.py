"""Rounds of streamed data."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from tunesmith.files.row import Row
from tunesmith.redact import redact
from tunesmith.run import Run
from tunesmith_engine.batch.examples import Example
from tunesmith_engine.batch.packing import pack
from tunesmith_engine.data.batches import Packs
from tunesmith_engine.data.build import examples_of
from tunesmith_engine.data.cache import Counts
from tunesmith_engine.data.rows import Reading, rows_of
from tunesmith_engine.rounds.rounds import Round, Rounds

WATCHED = 1000
"""Rows of a stream after which a warning is printed if most of them were dropped."""


class StreamedRounds(Rounds):
    """The rounds of streamed data: a window of examples is read ahead and packed. After the last row it starts over.

    The place is the raw row at which the current window begins, and the number of its packs that are used. A window
    ends between raw rows, never between the pieces of a split one, so a resumed run reads the same windows.
    """

    def __init__(self, run: Run, packed: bool = True):
        super().__init__(run)
        self.packed = packed and run.core.sample_packing
        self.counts: dict[str, Counts] = {}
        self.place = (0, 0)  # epoch and raw row at which the window begins
        self.next_place = (0, 0)  # the same of the next window
        self.used = 0
        self._window: Packs = []
        self._source: Iterator[tuple[int, Example]] | None = None
        self._ahead: tuple[int, Example] | None = None  # read to see that a raw row ended; first of the next window

    def next(self) -> Round:
        packs = self.take(self.packs_per_step)
        self.number += 1
        return Round([packs], packs[0][0])

    def take(self, number: int) -> Packs:
        """Return the next packs."""
        packs: Packs = []
        while len(packs) < number:
            if self.used >= len(self._window):
                self.place, self.used = self.next_place, 0
                self._fill()
            unused = self._window[self.used : self.used + number - len(packs)]
            self.used += len(unused)
            packs += unused
        return packs

    def _fill(self) -> None:
        """Read the window that begins at `place`, and pack it. Raises ConfigError if the data has no examples."""
        epoch, start = self.place
        core = self.run.core
        if self._source is None:
            self._source = self._examples(start)
        examples: list[Example] = []
        last = -1
        self.next_place = (epoch + 1, 0)
        while item := self._ahead or next(self._source, None):
            self._ahead = None
            number, example = item
            if len(examples) >= core.streaming_multipack_buffer_size and number != last:
                self._ahead, self.next_place = item, (epoch, number)
                break
            last = number
            examples.append(example)
        else:
            self._source = None
        if not examples:
            raise self.run.config.error(self.run.config.streamed[0].group, "has no examples to train on")
        packs: Iterable[list[int]] = ([i] for i in range(len(examples)))
        if self.packed:
            widths = np.array([e.width for e in examples], np.int64)
            packs = pack(widths, core.sequence_len, (core.seed, 3, epoch, start))
        self._window = [[examples[i] for i in members] for members in packs]

    def _examples(self, start: int) -> Iterator[tuple[int, Example]]:
        """Yield examples from raw row `start` on, each with the number of its raw row, counted over all entries."""
        before = 0  # raw rows of earlier entries
        for index, spec in enumerate(self.run.config.streamed):
            skip = _Skip(Reading(spec, rows_of(self.run, spec)), start - before)
            rows: Iterable[Row] = skip
            # Counts go on over epochs, so the rows of this pass are those beyond `done`.
            name = f"{spec.group}[{spec.index}] {spec.settings.path}"
            counts = self.counts.setdefault(name, Counts())
            done = counts.rows
            if not done:
                rows = self._warning(name, counts, rows)
            for example in examples_of(self.run, spec, rows, counts):
                example.origin = (index, skip.skipped + example.origin[1])
                yield before + skip.skipped + counts.rows - done - 1, example
            before += skip.skipped + counts.rows - done

    def _warning(self, name: str, counts: Counts, rows: Iterable[Row]) -> Iterator[Row]:
        """Yield the rows of the first pass. Print a warning once most of WATCHED rows were dropped."""
        for number, row in enumerate(rows):
            dropped = counts.too_long + counts.untrained
            if number == WATCHED and dropped > counts.rows / 2 and self.run.world.main:
                message = f"{name}: {dropped:,} of the first {counts.rows:,} rows are dropped, {counts.too_long:,} as "
                message += f"longer than sequence_len {self.run.core.sequence_len}"
                help = "raise sequence_len, or write excess_length_strategy: split (texts, conversations) or truncate"
                print(redact(f"warning: {message}; {help}"), file=sys.stderr, flush=True)
            yield row

    def state_dict(self) -> dict[str, Any]:
        return {"number": self.number, "place": list(self.place), "used": self.used}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.number, self.place = state["number"], (state["place"][0], state["place"][1])
        self._source = self._ahead = None
        if self.number:
            self._fill()
        self.used = state["used"]


class _Skip:
    """The rows after the first `skip`."""

    def __init__(self, rows: Iterable[Row], skip: int):
        self.rows, self.skip, self.skipped = rows, skip, 0

    def __iter__(self) -> Iterator[Row]:
        for row in self.rows:
            if self.skipped < self.skip:
                self.skipped += 1
            else:
                yield row
