"""Rounds of prepared data. The order of examples is a function of seed and epoch, so the place in it is a number."""

from __future__ import annotations

import math

from tunesmith.run import Run
from tunesmith_engine.batch.examples import Example, ExampleStore
from tunesmith_engine.batch.packing import IndexPacks, efficiency
from tunesmith_engine.data.mixing import Mixture, packs_in_order
from tunesmith_engine.rounds.rounds import Round, Rounds


class StoredRounds(Rounds):
    """The rounds of prepared data, which is mixed, shuffled and packed anew in each epoch.

    With `packed=False`, each pack has one example: prompts are packed with their completions.
    """

    def __init__(self, run: Run, store: ExampleStore, packed: bool = True):
        super().__init__(run)
        self.store = store
        self.capacity = run.core.sequence_len if packed and run.core.sample_packing else None
        weights = [spec.settings.weight for spec in run.config.datasets]
        entries = store.arrays["origin"][:, 0]
        self.mixture = Mixture(entries, weights, run.core.mixing_temperature, run.core.seed)
        self._epoch: tuple[int, IndexPacks | None] = (-1, None)
        self._packs_per_epoch = len(self.packs_of(0))
        self.per_epoch = math.ceil(self._packs_per_epoch / self.packs_per_step)

    def packs_of(self, epoch: int) -> IndexPacks:
        """Return packs of example indices, in the order of an epoch."""
        if self._epoch[0] == epoch and self._epoch[1] is not None:
            return self._epoch[1]
        self._epoch = (-1, None)  # free the order of another epoch first
        core = self.run.core
        how = "kept" if core.curriculum_sampling else "merged" if core.shuffle_merged_datasets else "apart"
        # The second number separates the random numbers of one seed by their use: 1 is the held-out split, 2 the order
        # of an epoch, 3 the windows of a stream, 4 the mixture.
        packs = packs_in_order(
            self.store.compact_widths(), self.mixture.epoch(epoch), self.capacity, (core.seed, 2, epoch), how
        )
        # The learning-rate schedule needs the number of steps in advance, so every epoch has as many packs as the
        # first. Fractional weights give an epoch other examples, which may fill a few packs more or fewer.
        if epoch:
            packs = packs.cut(self._packs_per_epoch)
        self._epoch = (epoch, packs)
        return packs

    def efficiency(self) -> float:
        """Return the share of the packs' room that is filled in the first epoch."""
        return efficiency(self.store.compact_widths(), self.packs_of(0), self.run.core.sequence_len)

    def next(self) -> Round:
        assert self.per_epoch is not None
        epoch, index = divmod(self.number, self.per_epoch)
        start = index * self.packs_per_step
        packs = [self.read(members) for members in self.packs_of(epoch)[start : start + self.packs_per_step]]
        self.number += 1
        return Round([packs], packs[0][0])

    def read(self, members: list[int]) -> list[Example]:
        """Return the examples of a pack."""
        return [self.store[i] for i in members]
