"""The interface of rounds: examples for one or more optimizer steps, and their source."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

from tunesmith.run import Run
from tunesmith_engine.batch.examples import Example, ExampleStore
from tunesmith_engine.batch.terms import Table
from tunesmith_engine.data.batches import Packs


@dataclass
class Round:
    """The examples of one or more optimizer steps, the same on all processes.

    minibatches: the packs of each step. iterations: how many times the minibatches are trained on, one after the other.
    spare: an example from which a process without packs makes a batch to stay in sync. metrics: numbers about the round
    for loggers. per_batch: packs of a micro-batch; micro_batch_size by default. completions: texts for loggers.
    seconds: the time it took to generate the round. used: steps taken.
    """

    minibatches: list[Packs]
    spare: Example
    iterations: int = 1
    metrics: dict[str, float] = field(default_factory=dict)
    per_batch: int | None = None
    completions: Table = ()
    seconds: float = 0.0
    used: int = 0

    @property
    def done(self) -> bool:
        """True if every step of the round is taken."""
        return self.used >= len(self.minibatches) * self.iterations

    def next_packs(self) -> Packs:
        """Return the packs of the next step, for all processes."""
        packs = self.minibatches[self.used % len(self.minibatches)]
        self.used += 1
        return packs

    def state_dict(self) -> dict[str, Any]:
        """Return the round as JSON values and arrays."""
        packs = [members for minibatch in self.minibatches for members in minibatch]
        store = ExampleStore.collect([self.spare, *(e for members in packs for e in members)])
        return {
            "arrays": store.arrays,
            "fields": store.fields,
            "packs": [[len(members) for members in minibatch] for minibatch in self.minibatches],
            "iterations": self.iterations,
            "metrics": self.metrics,
            "per_batch": self.per_batch,
            "completions": [dict(row) for row in self.completions],
            "used": self.used,
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Round:
        spare, *rest = ExampleStore(state["arrays"], state["fields"])
        examples = iter(rest)
        packs = [[[next(examples) for _ in range(size)] for size in sizes] for sizes in state["packs"]]
        own = {name: state[name] for name in ("iterations", "metrics", "per_batch", "completions", "used")}
        return cls(packs, spare, **own)


class Rounds(ABC):
    """The rounds of a run, one after the other. state_dict contains the place in the data.

    per_epoch: rounds in a pass over the data; None for a stream. steps: optimizer steps of each round.
    packs_per_step: packs of an optimizer step over all processes.
    """

    per_epoch: int | None = None
    steps: int = 1

    def __init__(self, run: Run):
        core = run.core
        self.run = run
        self.packs_per_step = core.micro_batch_size * core.gradient_accumulation_steps * run.world.data.size
        self.number = 0

    @abstractmethod
    def next(self) -> Round:
        """Return the next round. Call it on all processes."""

    def state_dict(self) -> dict[str, Any]:
        return {"number": self.number}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.number = state["number"]
