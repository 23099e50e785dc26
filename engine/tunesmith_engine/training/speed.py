"""Measure what the processes of a run spend their time on, and name one that is slower than the others.

Clocks are read on every step, and exchanged on logged ones. On a GPU, events measure the time of the computation, since
the calls return before it has happened.
"""

from __future__ import annotations

import platform
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from tunesmith.run import Run
from tunesmith_engine.batch.batch import Batch
from tunesmith_engine.model import flops
from tunesmith_engine.model.policy import Policy

MARKS = 64
"""The number of steps whose marks are kept. Then the older half is turned into seconds, which waits for no GPU."""

SLOW, LOGGED, NOTICED = 1.5, 5, 0.05
"""A process is slow if its step takes SLOW times the median of the others and NOTICED seconds more, in LOGGED logged
steps in a row. A busy machine delays single steps."""


class Speed:
    """The time of this process since the last logged step.

    own: seconds per step until its gradients are ready, if processes wait for each other only after that, as they do
    with DDP. Processes of a sharded model, or of a divided pack, wait within layers, so that all take equally long.
    """

    def __init__(self, run: Run, policy: Policy):
        self.run = run
        replicated = isinstance(policy.module, DistributedDataParallel)
        self.apart = replicated and run.world.axis("context").size == 1
        self.peak = flops.peak(run.device) if run.world.half else None
        self.flops = flops.count(policy.model) if self.peak else None
        self.hosts = run.world.gather(platform.node()) if self.apart else []
        self.slow: dict[int, int] = {}  # rank -> logged steps in a row
        self.warned = False
        self._clear()

    def _clear(self) -> None:
        self.steps, self.seconds, self.data, self.operations = 0, 0.0, 0.0, 0.0
        self.own = self.exchange = 0.0  # seconds of the steps whose marks are dropped
        self.pairs: Tensor | None = None
        self.marks: list[tuple[Any, ...]] = []  # of each step: beginning of forward passes, gradients, their sum

    def begin(self, data: float) -> None:
        """Begin the forward passes of a step. data: the seconds until its micro-batches were there."""
        self.data += data
        self._now = [self._mark()] if self.apart else []

    def last(self, loss: Tensor) -> None:
        """Prepare for the backward pass of the last micro-batch of a step."""
        if self.apart:
            # A callback of autograd runs when all gradients are computed. DDP adds its own, which waits until they are
            # exchanged, later in this backward pass, and callbacks run in order.
            engine: Any = torch.autograd.Variable._execution_engine
            loss.register_hook(lambda _: engine.queue_callback(lambda: self._now.append(self._mark())))

    def end(self, batches: Sequence[Batch], totals: dict[str, float]) -> None:
        """End the backward passes of a step."""
        if self.apart and len(self._now) == 2:
            self.marks.append((*self._now, self._mark()))
            if len(self.marks) == MARKS:
                self._measure(MARKS // 2)
        if self.flops:
            size = self.run.world.size
            self.operations += self.flops.token * totals["input_tokens"] / size
            self.operations += self.flops.scored * totals["tokens"] / size
            for batch in batches:
                if not batch.dummy:
                    pairs = self.flops.pairs(batch.position_ids)
                    self.pairs = pairs if self.pairs is None else self.pairs + pairs

    def count(self, seconds: float) -> None:
        """Count a step. seconds: its duration without the round that it began."""
        self.steps += 1
        self.seconds += seconds

    def metrics(self) -> dict[str, float]:
        """Return the metrics since the last call. Call it on all processes."""
        world, steps = self.run.world, max(self.steps, 1)
        self._measure(len(self.marks))
        operations = self.operations
        if self.flops and self.pairs is not None:  # several processes may compute a pack together
            share = world.data.size / world.size
            operations += share * self.flops.pair * float(self.pairs)
        values = [(self.data + self.own) / steps, self.exchange, self.data, operations]
        # Each process fills in its own row, and the sum has all of them.
        table = torch.zeros(world.size, len(values), dtype=torch.float64)
        table[world.rank] = torch.tensor(values, dtype=torch.float64)
        rows = world.sum(table.to(world.device), axis="world").tolist() if world.size > 1 else [values]
        seconds = max(self.seconds, 1e-9)
        metrics = {"speed/data_wait": min(1.0, sum(row[2] for row in rows) / world.size / seconds)}
        if self.peak and self.flops:
            metrics["speed/mfu"] = sum(row[3] for row in rows) / world.size / seconds / self.peak
        if self.apart:
            metrics["speed/gradient_exchange"] = min(1.0, sum(row[1] for row in rows) / world.size / seconds)
            metrics |= self._compare([row[0] for row in rows])
        self._clear()
        return metrics

    def _compare(self, own: list[float]) -> dict[str, float]:
        """Return the metrics of the slowest process, and note one that has been slow for several logged steps."""
        rank = max(range(len(own)), key=own.__getitem__)
        others = statistics.median(seconds for index, seconds in enumerate(own) if index != rank)
        behind = own[rank] > SLOW * others and own[rank] - others > NOTICED
        self.slow = {rank: self.slow.get(rank, 0) + 1} if behind else {}
        if self.slow.get(rank) == LOGGED and not self.warned:
            self.warned = True
            message = (
                f"process {rank} on {self.hosts[rank]} takes {own[rank]:.3g} s for its part of a step, the others "
            )
            message += f"{others:.3g} s (median), since step {self.run.step}: all of them wait for it"
            self.run.note("slow process", message)
            if self.run.world.main:
                print(f"warning: {message}", file=sys.stderr)
        return {
            "speed/slowest_process": rank,
            "speed/slowest_process_seconds": own[rank],
            "speed/median_process_seconds": statistics.median(own),
        }

    def _measure(self, number: int) -> None:
        """Turn the oldest marks into seconds."""
        for first, ready, after in self.marks[:number]:
            self.own += self._between(first, ready)
            self.exchange += self._between(ready, after)
        del self.marks[:number]

    def _mark(self) -> Any:
        if self.run.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _between(self, first: Any, second: Any) -> float:
        if isinstance(first, float):
            return float(second - first)
        second.synchronize()
        return float(first.elapsed_time(second)) / 1000
