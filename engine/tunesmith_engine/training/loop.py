"""The training loop: rounds of examples to optimizer steps to checkpoints."""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from tunesmith.errors import PluginError
from tunesmith.run import Run
from tunesmith_engine.batch.batch import Batch
from tunesmith_engine.batch.examples import Example
from tunesmith_engine.batch.terms import StepRecord, Term
from tunesmith_engine.checkpoint.save import save
from tunesmith_engine.data.loader import Loader, batches, micro_batches, repack
from tunesmith_engine.model.policy import Policy
from tunesmith_engine.runtime.world import clip_gradients
from tunesmith_engine.training import nonfinite, state
from tunesmith_engine.training.evaluation import Best, evaluate


class Interrupted(Exception):
    """SIGTERM or SIGINT came; a checkpoint was saved. `code` is what the process exits with."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.code = 128 + number


class Loop:
    """One training run from its first step, or the one it was resumed at, to its last."""

    def __init__(self, run: Run, policy: Policy, optimizer: Any, scheduler: Any, loader: Loader, total_steps: int):
        self.run = run
        self.policy = policy
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.loader = loader
        self.total_steps = total_steps
        self.parameters = [p for p in policy.model.parameters() if p.requires_grad]
        self.round: list[Example] = []  # what expand made, while it is reused
        self.used = 0  # optimizer steps taken on it
        self.idle = False  # this process has no examples of its own in it
        self.tokens = 0
        self.bad_steps = 0  # in a row, with a loss or gradient that was not finite
        self.best = Best()
        self.interrupt: int | None = None
        self._seconds, self._counted = 0.0, 0  # spent in steps since the last line of the log, and tokens before it

    # one step

    def step(self) -> StepRecord:
        """Take one optimizer step: forward and backward of every micro-batch, then the update if all is nonfinite."""
        run, world = self.run, self.run.world
        started = time.perf_counter()
        self.policy.model.eval()  # what is generated, and what a reference says, is without dropout
        made = self.next_batches()
        with torch.no_grad():
            run.hooks.prepare_step(run, self.policy, made)
        totals = self.totals(made)
        sums: dict[str, Tensor] = {}
        losses: list[Tensor] = []
        self.policy.model.train()
        for number, batch in enumerate(made):
            with world.accumulating(self.policy.module, last=number == len(made) - 1):
                out = self.policy(batch)
                terms = run.hooks.compute_loss(run, self.policy, out, batch)
                loss = combine(terms, totals, batch, sums)
                if batch.dummy:  # a zero that every parameter has a part in, whatever the method made of it
                    loss = out.zero()
                losses.append(loss.detach())
                world.accelerator.backward(loss * world.size)  # data parallelism averages over processes
        norm = clip_gradients(self.parameters, run.core.max_grad_norm)
        metrics = self.reduced(sums)
        rate = self.optimizer.param_groups[0]["lr"]
        if nonfinite.is_finite(metrics, norm):
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.bad_steps = 0
        else:
            nonfinite.react(self, [b for b, loss in zip(made, losses, strict=True) if not loss.isfinite()], metrics)
        self.scheduler.step()
        run.step += 1
        self.tokens += int(totals["input_tokens"])
        self._seconds += time.perf_counter() - started
        return self.record(metrics | {"grad_norm": norm, "learning_rate": rate, "tokens": self.tokens})

    def next_batches(self) -> list[Batch]:
        """The micro-batches of this process for the next step."""
        run, core = self.run, self.run.core
        if run.hooks.has("expand"):
            if not self.round or self.used >= run.reuse:
                rows = self.loader.next_packs()
                groups, _ = micro_batches(rows, run.world.rank, run.world.size, core.micro_batch_size)
                given = [e for group in groups for e in group]
                self.idle = not given  # more processes than examples: this one keeps the others company
                with torch.no_grad():
                    self.round, self.used = run.hooks.expand(run, self.policy, given or rows[0][:1]), 0
            self.used += 1
            groups, number = micro_batches(repack(run, self.round), 0, 1, core.micro_batch_size)
            number = run.world.maximum(number)
            return batches(run, [] if self.idle else groups, number, self.round)
        rows = self.loader.next_packs()
        groups, number = micro_batches(rows, run.world.rank, run.world.size, core.micro_batch_size)
        return batches(run, groups, number, rows[0])

    def totals(self, made: Sequence[Batch]) -> dict[str, float]:
        """The counts of all micro-batches of a step over all processes, known before the first backward."""
        local: dict[str, float] = {}
        for batch in made:
            for name, count in batch.counts.items():
                local[name] = local.get(name, 0.0) + (0.0 if batch.dummy else float(count))
        return self.run.world.sums(local)

    def reduced(self, sums: dict[str, Tensor]) -> dict[str, Tensor | float]:
        """Averages over all micro-batches and processes; "loss" is the total that was trained on."""
        names = sorted(sums)
        values = self.run.world.sum(torch.stack([sums[name].detach().float() for name in names]))
        return dict(zip(names, values, strict=True))

    def record(self, metrics: dict[str, Tensor | float]) -> StepRecord:
        step = self.run.step
        log = step % self.run.core.logging_steps == 0 or step == self.total_steps
        metrics["tokens_per_second"] = (self.tokens - self._counted) / max(self._seconds, 1e-9)
        if log:
            self._seconds, self._counted = 0.0, self.tokens
        return StepRecord(step, self.epoch, metrics, None, log)

    @property
    def epoch(self) -> float:
        rounds = self.loader.rounds_per_epoch
        return self.run.step / (rounds * self.run.reuse) if rounds else 0.0

    # the whole

    def fit(self) -> None:
        """Train to the last step, evaluating and saving as the config says. Raises Interrupted after a signal."""
        run, core = self.run, self.run.core
        save_every = self.every(core.save_steps, core.saves_per_epoch)
        eval_every = self.every(core.eval_steps, core.evals_per_epoch)
        held = run.data.eval if run.data else None
        self._counted = self.tokens
        while run.step < self.total_steps and not run.stopped:
            record = self.step()
            last = run.step == self.total_steps
            improved = False
            if held is not None and (last or (eval_every and run.step % eval_every == 0)):
                record.evaluation = evaluate(run, self.policy, held)
            run.hooks.on_step(run, self.policy, record)
            if record.evaluation is not None:
                improved = self.best.update(run, record.evaluation)
            stop = self.signalled()
            best = improved and core.load_best_model_at_end
            if stop or best or last or run.stopped or (save_every and run.step % save_every == 0):
                save(run, self.policy, self.parts, self.best.step)
                stop = stop or self.signalled()  # one that came while saving: do not take another step first
            if stop:
                raise Interrupted(stop)

    def parts(self) -> dict[str, Any]:
        """The trees of a checkpoint, by file name."""
        trainable, optimizer = state.gather(self)
        mine = {f"rank-{self.run.world.rank}": state.own(self)}
        return {"trainable": trainable, "optimizer": optimizer, "state": state.shared(self), **mine}

    def every(self, steps: int | None, per_epoch: int | None) -> int | None:
        """Steps between two events; once an epoch where nothing is said, and at the end alone for a stream."""
        rounds = self.loader.rounds_per_epoch
        if steps or not rounds:
            return steps
        return max(1, math.ceil(rounds * self.run.reuse / (per_epoch or 1)))

    # signals

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """On SIGTERM and SIGINT finish the step, save, and leave; on a second one leave at once.

        Only the main thread of a process can listen to signals; elsewhere they keep their meaning.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def on_signal(number: int, frame: Any) -> None:
            if self.interrupt is not None:
                signal.signal(number, signal.SIG_DFL)
                signal.raise_signal(number)
            self.interrupt = number

        before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def signalled(self) -> int | None:
        """The signal that came to any process, on all of them."""
        return self.run.world.maximum(self.interrupt or 0) or None


def combine(terms: dict[str, Term], totals: dict[str, float], batch: Batch, sums: dict[str, Tensor]) -> Tensor:
    """The loss of a micro-batch: each term over its count in the whole step. Adds to `sums`: "loss", and single terms
    by name where there are several."""
    trained = [name for name, term in terms.items() if not term.metric]
    if not trained:
        raise PluginError("compute_loss gave no term to train on; all are metrics")
    losses = []
    for name, term in terms.items():
        if isinstance(term.count, str) and term.count not in totals:
            known = ", ".join(sorted(totals))
            raise PluginError(f"term {name!r} is divided by {term.count!r}, which nobody counts; counts: {known}")
        divisor = totals[term.count] if isinstance(term.count, str) else float(term.count)
        value = torch.zeros_like(term.sum) if batch.dummy else term.sum / max(divisor, 1e-12)
        if term.metric or len(trained) > 1:
            sums[name] = sums.get(name, 0.0) + value.detach()
        if not term.metric:
            losses.append(value)
    loss = torch.stack(losses).sum()
    sums["loss"] = sums.get("loss", 0.0) + loss.detach()
    return loss
