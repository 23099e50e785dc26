"""Which examples an optimizer step trains on, on which process, in which micro-batch; and how a run finds its place.

Rows of a step are dealt to micro-batches, and micro-batches to processes in turn, so the examples of a step do not
depend on how many processes there are or how much each accumulates. The order is a function of seed and epoch, so the
place in it is a number.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from itertools import cycle, islice
from typing import Any

import numpy as np

from tunesmith.checks import warn_of_intervals
from tunesmith.files.row import Row
from tunesmith.run import Run
from tunesmith_engine.batch.batch import Batch, collate
from tunesmith_engine.batch.examples import Example, ExampleStore
from tunesmith_engine.batch.packing import efficiency, pack
from tunesmith_engine.data.cache import Counts
from tunesmith_engine.data.mixing import Mixture, packs_in_order
from tunesmith_engine.data.prepare import examples_of
from tunesmith_engine.data.rows import Reading, rows_of

Packs = list[list[Example]]


class Loader(ABC):
    """Gives the rows of one round after the other; state_dict and load_state_dict hold the place."""

    rounds_per_epoch: int | None = None

    def __init__(self, run: Run):
        core = run.core
        self.run = run
        self.packs_per_step = core.micro_batch_size * core.gradient_accumulation_steps * run.world.size
        self.round = 0

    @abstractmethod
    def next_packs(self) -> Packs:
        """The packed rows of the next round, for all processes. Raises StopIteration at the end of a stream."""

    def state_dict(self) -> dict[str, Any]:
        return {"round": self.round}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.round = state["round"]


class StoredLoader(Loader):
    """Prepared data, mixed, shuffled and packed anew in each epoch."""

    def __init__(self, run: Run, store: ExampleStore):
        super().__init__(run)
        self.store = store
        weights = [spec.settings.weight for spec in run.config.datasets]
        entries = store.arrays["origin"][:, 0]
        self.mixture = Mixture(entries, weights, run.core.mixing_temperature, run.core.seed)
        self._epoch: tuple[int, list[list[int]]] = (-1, [])
        self._packs_per_epoch = len(self.packs_of(0))
        self.rounds_per_epoch = math.ceil(self._packs_per_epoch / self.packs_per_step)

    def packs_of(self, epoch: int) -> list[list[int]]:
        """Rows of example indices in the order of an epoch."""
        if self._epoch[0] != epoch:
            core = self.run.core
            packs = core.sample_packing and not self.run.hooks.has("expand")
            how = "kept" if core.curriculum_sampling else "merged" if core.shuffle_merged_datasets else "apart"
            parts, seed = self.mixture.epoch(epoch), (core.seed, 2, epoch)
            rows = packs_in_order(self.store.widths, parts, core.sequence_len if packs else None, seed, how)
            if epoch:  # examples of other widths may fill a few rows more or less than in the first epoch
                rows = list(islice(cycle(rows), self._packs_per_epoch))
            self._epoch = (epoch, rows)
        return self._epoch[1]

    def efficiency(self) -> float:
        """Filled share of the packed rows."""
        return efficiency(self.store.widths, self.packs_of(0), self.run.core.sequence_len)

    def next_packs(self) -> Packs:
        assert self.rounds_per_epoch is not None
        epoch, index = divmod(self.round, self.rounds_per_epoch)
        start = index * self.packs_per_step
        rows = self.packs_of(epoch)[start : start + self.packs_per_step]
        self.round += 1
        return [[self.store[i] for i in row] for row in rows]


class StreamLoader(Loader):
    """Streamed data: windows of examples are read ahead and packed; at the end of the data it starts again.

    The place is the raw row at which the current window begins, and how many of its packed rows are used. Windows end
    between raw rows, so a resumed run makes the same ones.
    """

    def __init__(self, run: Run):
        super().__init__(run)
        self.counts: dict[str, Counts] = {}
        self.place = (0, 0)  # epoch and raw row where the window begins
        self.following = (0, 0)  # where the next one will
        self.used = 0
        self._window: Packs = []
        self._source: Iterator[tuple[int, Example]] | None = None
        self._ahead: tuple[int, Example] | None = None

    def next_packs(self) -> Packs:
        rows: Packs = []
        while len(rows) < self.packs_per_step:
            if self.used >= len(self._window):
                self.place, self.used = self.following, 0
                self._fill()
            take = self._window[self.used : self.used + self.packs_per_step - len(rows)]
            self.used += len(take)
            rows += take
        self.round += 1
        return rows

    def _fill(self) -> None:
        """Read one window from `place` on, and pack it."""
        epoch, start = self.place
        if self._source is None:
            self._source = self._examples(start)
        size = self.run.core.streaming_multipack_buffer_size
        examples: list[Example] = []
        last = -1
        self.following = (epoch + 1, 0)
        while item := self._ahead or next(self._source, None):
            self._ahead = None
            if len(examples) >= size and item[0] != last:
                self._ahead, self.following = item, (epoch, item[0])
                break
            last = item[0]
            examples.append(item[1])
        else:
            self._source = None
        if not examples:
            raise self.run.config.error(self.run.config.streamed[0].group, "gives no examples")
        widths = np.array([e.width for e in examples], np.int64)
        packed = pack(widths, self.run.core.sequence_len, (self.run.core.seed, 3, epoch, start))
        rows = packed if self.run.core.sample_packing else [[i] for i in range(len(examples))]
        self._window = [[examples[i] for i in row] for row in rows]

    def _examples(self, start: int) -> Iterator[tuple[int, Example]]:
        """(number of its raw row over all entries, example) from raw row `start` on."""
        before = 0
        for index, spec in enumerate(self.run.config.streamed):
            rows = _Skip(Reading(spec, rows_of(self.run, spec)), start - before)
            counts = self.counts.setdefault(f"{spec.group}[{spec.index}] {spec.settings.path}", Counts())
            done = counts.rows
            for example in examples_of(self.run, spec, rows, counts):
                example.origin = (index, rows.skipped + example.origin[1])
                yield before + rows.skipped + counts.rows - done - 1, example
            before += rows.skipped + counts.rows - done

    def state_dict(self) -> dict[str, Any]:
        return {"round": self.round, "place": list(self.place), "used": self.used}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.round, self.place = state["round"], (state["place"][0], state["place"][1])
        self._source = self._ahead = None
        if self.round:
            self._fill()
        self.used = state["used"]


class _Skip:
    """Rows after the first `skip`."""

    def __init__(self, rows: Iterable[Row], skip: int):
        self.rows, self.skip, self.skipped = rows, skip, 0

    def __iter__(self) -> Iterator[Row]:
        for row in self.rows:
            if self.skipped < self.skip:
                self.skipped += 1
            else:
                yield row


def micro_batches(rows: Packs, rank: int, size: int, per_batch: int) -> tuple[list[list[Example]], int]:
    """The micro-batches of one process out of the rows of a step, and how many every process has to run."""
    groups = [[e for row in rows[i : i + per_batch] for e in row] for i in range(0, len(rows), per_batch)]
    return groups[rank::size], math.ceil(len(groups) / size)


def build_batches(run: Run, groups: list[list[Example]], number: int, spare: list[Example]) -> list[Batch]:
    """Collate micro-batches on the device; fill up to `number` with dummies so that all processes run equally many."""
    points = run.needs.scores
    made = [collate(group, share=run.shares_prompts, score_points=points) for group in groups]
    while len(made) < number:
        made.append(collate(spare[:1], share=run.shares_prompts, score_points=points))
        made[-1].dummy = True
        made[-1].counts = dict.fromkeys(made[-1].counts, 0.0)
    return [batch.to(run.device) for batch in made]


def repack(run: Run, examples: list[Example]) -> Packs:
    """Rows of examples that were made during the step, packed if the run packs."""
    if not run.core.sample_packing:
        return [[e] for e in examples]
    widths = np.array([e.width for e in examples], np.int64)
    return [[examples[i] for i in row] for row in pack(widths, run.core.sequence_len)]


def build_loader(run: Run) -> Loader:
    """The loader of a run: prepared data, or a stream."""
    assert run.data is not None
    if run.data.train is None:
        return StreamLoader(run)
    return StoredLoader(run, run.data.train)


def count_steps(run: Run, loader: Loader) -> int:
    """Optimizer steps of the whole run: num_epochs of data, at most max_steps. Notes what none of them will reach."""
    if loader.rounds_per_epoch is None:
        assert run.core.max_steps is not None  # the core's own check
        return run.core.max_steps
    steps = math.ceil(loader.rounds_per_epoch * run.reuse * run.core.num_epochs)
    steps = min(steps, run.core.max_steps or steps)
    warn_of_intervals(run, steps)
    return steps
