"""Load the packs of each optimizer step, and distribute them over processes and micro-batches.

The packs of a step go to micro-batches in order, and the micro-batches to processes in turn. The examples of a step
therefore do not depend on how many processes there are, or on how many micro-batches each of them accumulates. Their
order is a function of seed and epoch, so the place in the data is a number.
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
    """A source of packs, one round after the other. state_dict contains its place in the data."""

    rounds_per_epoch: int | None = None

    def __init__(self, run: Run):
        core = run.core
        self.run = run
        self.packs_per_step = core.micro_batch_size * core.gradient_accumulation_steps * run.world.size
        self.round = 0

    @abstractmethod
    def next_packs(self) -> Packs:
        """Return the packs of the next round, for all processes."""

    def state_dict(self) -> dict[str, Any]:
        return {"round": self.round}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.round = state["round"]


class StoredLoader(Loader):
    """A loader of prepared data, which is mixed, shuffled and packed anew in each epoch."""

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
        """Return packs of example indices, in the order of an epoch."""
        if self._epoch[0] == epoch:
            return self._epoch[1]
        core = self.run.core
        # `expand` changes the width of examples, so they are packed after it (see repack).
        capacity = core.sequence_len if core.sample_packing and not self.run.hooks.has("expand") else None
        how = "kept" if core.curriculum_sampling else "merged" if core.shuffle_merged_datasets else "apart"
        # The second number separates the random numbers of one seed by their use: 1 is the held-out split, 2 the order
        # of an epoch, 3 the windows of a stream, 4 the mixture.
        packs = packs_in_order(self.store.widths, self.mixture.epoch(epoch), capacity, (core.seed, 2, epoch), how)
        # The learning-rate schedule needs the number of steps in advance, so every epoch has as many packs as the
        # first. Fractional weights give an epoch other examples, which may fill a few packs more or fewer.
        if epoch:
            packs = list(islice(cycle(packs), self._packs_per_epoch))
        self._epoch = (epoch, packs)
        return packs

    def efficiency(self) -> float:
        """Return the share of the packs' room that is filled in the first epoch."""
        return efficiency(self.store.widths, self.packs_of(0), self.run.core.sequence_len)

    def next_packs(self) -> Packs:
        assert self.rounds_per_epoch is not None
        epoch, index = divmod(self.round, self.rounds_per_epoch)
        start = index * self.packs_per_step
        packs = self.packs_of(epoch)[start : start + self.packs_per_step]
        self.round += 1
        return [[self.store[i] for i in members] for members in packs]


class StreamLoader(Loader):
    """A loader of streamed data: it reads a window of examples ahead and packs it. After the last row it starts over.

    The place is the raw row at which the current window begins, and the number of its packs that are used. A window
    ends between raw rows, never between the pieces of a split one, so a resumed run reads the same windows.
    """

    def __init__(self, run: Run):
        super().__init__(run)
        self.counts: dict[str, Counts] = {}
        self.place = (0, 0)  # epoch and raw row at which the window begins
        self.next_place = (0, 0)  # the same of the next window
        self.used = 0
        self._window: Packs = []
        self._source: Iterator[tuple[int, Example]] | None = None
        self._ahead: tuple[int, Example] | None = None  # read to see that a raw row ended; first of the next window

    def next_packs(self) -> Packs:
        packs: Packs = []
        while len(packs) < self.packs_per_step:
            if self.used >= len(self._window):
                self.place, self.used = self.next_place, 0
                self._fill()
            unused = self._window[self.used : self.used + self.packs_per_step - len(packs)]
            self.used += len(unused)
            packs += unused
        self.round += 1
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
        packs = [[i] for i in range(len(examples))]
        if core.sample_packing:
            widths = np.array([e.width for e in examples], np.int64)
            packs = pack(widths, core.sequence_len, (core.seed, 3, epoch, start))
        self._window = [[examples[i] for i in members] for members in packs]

    def _examples(self, start: int) -> Iterator[tuple[int, Example]]:
        """Yield examples from raw row `start` on, each with the number of its raw row, counted over all entries."""
        before = 0  # raw rows of earlier entries
        for index, spec in enumerate(self.run.config.streamed):
            rows = _Skip(Reading(spec, rows_of(self.run, spec)), start - before)
            # Counts go on over epochs, so the rows of this pass are those beyond `done`.
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
    """The rows after the first `skip`."""

    def __init__(self, rows: Iterable[Row], skip: int):
        self.rows, self.skip, self.skipped = rows, skip, 0

    def __iter__(self) -> Iterator[Row]:
        for row in self.rows:
            if self.skipped < self.skip:
                self.skipped += 1
            else:
                yield row


def micro_batches(packs: Packs, rank: int, size: int, per_batch: int) -> tuple[list[list[Example]], int]:
    """Return a process's micro-batches of the packs of a step, and how many micro-batches every process must run."""
    groups = [[e for members in packs[i : i + per_batch] for e in members] for i in range(0, len(packs), per_batch)]
    return groups[rank::size], math.ceil(len(groups) / size)


def build_batches(run: Run, groups: list[list[Example]], number: int, spare: list[Example]) -> list[Batch]:
    """Collate micro-batches on the device, and fill up to `number` with dummies made from an example of `spare`.

    Every process runs equally many forwards, because each of them communicates under sharding.
    """
    batches = [collate(group, share=run.shares_prompts) for group in groups]
    while len(batches) < number:
        dummy = collate(spare[:1], share=run.shares_prompts)
        dummy.dummy = True
        dummy.counts = dict.fromkeys(dummy.counts, 0.0)
        batches.append(dummy)
    return [batch.to(run.device) for batch in batches]


def repack(run: Run, examples: list[Example]) -> Packs:
    """Return packs of examples that were generated during the step; one example each if the run does not pack."""
    if not run.core.sample_packing:
        return [[e] for e in examples]
    widths = np.array([e.width for e in examples], np.int64)
    return [[examples[i] for i in members] for members in pack(widths, run.core.sequence_len)]


def build_loader(run: Run) -> Loader:
    """Build the loader of a run, of prepared data or of a stream."""
    assert run.data is not None
    if run.data.train is None:
        return StreamLoader(run)
    return StoredLoader(run, run.data.train)


def count_steps(run: Run, loader: Loader) -> int:
    """Return the optimizer steps of the full run: num_epochs of data, at most max_steps.

    Notes settings of intervals (such as save_steps) that are longer than the run.
    """
    if loader.rounds_per_epoch is None:
        assert run.core.max_steps is not None  # checked by the core for streams
        return run.core.max_steps
    steps = math.ceil(loader.rounds_per_epoch * run.reuse * run.core.num_epochs)
    steps = min(steps, run.core.max_steps or steps)
    warn_of_intervals(run, steps)
    return steps
