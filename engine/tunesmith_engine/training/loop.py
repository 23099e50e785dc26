"""The training loop: rounds of examples become optimizer steps, evaluations and checkpoints."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from tunesmith.errors import PluginError, TunesmithError
from tunesmith_engine.batch.batch import Batch
from tunesmith_engine.batch.terms import StepRecord, Term
from tunesmith_engine.checkpoint.save import name_kept
from tunesmith_engine.data.batches import build_batches, micro_batches
from tunesmith_engine.model.optimizers import learning_rate
from tunesmith_engine.runtime.signals import Interrupted, Signals
from tunesmith_engine.training import nonfinite
from tunesmith_engine.training.evaluation import check_declared, evaluate
from tunesmith_engine.training.result import History
from tunesmith_engine.training.speed import Speed
from tunesmith_engine.training.state import TrainState


class Loop:
    """Take optimizer steps on a TrainState until the run ends."""

    def __init__(self, state: TrainState):
        self.state = state
        self.run, self.policy = state.run, state.policy
        self.parameters = [p for p in state.policy.unwrapped.parameters() if p.requires_grad]
        self.current = self.run.step + 1  # the step that is taken or saved
        self.signals = Signals(lambda: f"step {self.current}", self.run.world.main)
        self.idle = 0  # steps in a row without a gradient
        self.history = History()
        self.speed = Speed(state.run, state.policy)
        self._seconds, self._counted = 0.0, state.tokens  # time and tokens since the last line of the log

    # one step

    def step(self) -> StepRecord:
        """Take one optimizer step: forward and backward of every micro-batch, then the update if all is finite."""
        run, state, parallelism = self.run, self.state, self.run.parallelism
        started = time.perf_counter()
        self.policy.model.eval()  # no dropout in generation, nor in what a reference computes
        batches = self.next_batches()
        assert state.round is not None
        generating = state.round.seconds if state.round.used == 1 else 0.0
        waited = time.perf_counter() - started - generating
        with torch.no_grad():
            run.hooks.prepare_step(run, self.policy, batches)
        # Counts of the whole step, known before the first backward: each term is divided by them once, so neither
        # accumulation nor packing nor the number of processes changes the gradient.
        totals = self.totals(batches)
        sums: dict[str, Tensor] = {}
        losses: list[Tensor] = []
        self.policy.model.train()
        self.speed.begin(waited)
        for number, batch in enumerate(batches):
            with parallelism.accumulating(self.policy.module, last=number == len(batches) - 1):
                out = self.policy(batch)
                terms = run.hooks.compute_loss(run, self.policy, out, batch)
                loss = combine(terms, totals, batch, sums)
                if batch.dummy:  # a zero that depends on every parameter, whatever the method returned
                    loss = out.zero()
                elif not loss.requires_grad:
                    message = f"plugin {run.hooks.method_plugin} returned terms without a gradient from compute_loss"
                    raise PluginError(message, help="compute them from `out`, without detach() and item()")
                losses.append(loss.detach())
                if number == len(batches) - 1:
                    self.speed.last(loss)
                parallelism.backward(loss)
        self.speed.end(batches, totals)
        norm = parallelism.clip(self.parameters, run.core.max_grad_norm)
        metrics = self.reduced(sums)
        if nonfinite.is_finite(metrics, norm):
            parallelism.step(state.optimizer)
            state.bad_steps = 0
        else:
            bad = [batch for batch, loss in zip(batches, losses, strict=True) if not loss.isfinite()]
            nonfinite.react(state, bad, metrics)
        rate = learning_rate(state.optimizer)
        state.scheduler.step()
        run.step += 1
        state.tokens += int(totals["input_tokens"])
        seconds = time.perf_counter() - started
        self._seconds += seconds
        self.speed.count(seconds - generating)
        numbers: dict[str, Tensor | float] = {
            **state.round.metrics,
            "grad_norm": norm,
            "learning_rate": rate,
            "tokens": state.tokens,
        }
        if state.round.metrics:
            numbers["speed/training_tokens_per_second"] = totals["input_tokens"] / max(seconds - generating, 1e-9)
        record = self.record(metrics | numbers)
        if record.log and state.round.completions:  # at the first logged step of a round
            record.tables["completions"], state.round.completions = state.round.completions, ()
        return record

    def next_batches(self) -> list[Batch]:
        """Return the micro-batches of this process for the next step."""
        run, world, state = self.run, self.run.world, self.state
        if state.round is None or state.round.done:
            with torch.no_grad():
                state.round = state.rounds.next()
        packs = state.round.next_packs()
        per_batch = state.round.per_batch or run.core.micro_batch_size
        groups, number = micro_batches(packs, world.data.rank, world.data.size, per_batch)
        return build_batches(run, groups, max(number, 1), [state.round.spare])

    def totals(self, batches: Sequence[Batch]) -> dict[str, float]:
        """Return the counts of all micro-batches of a step, summed over all processes."""
        local: dict[str, float] = {}
        for batch in batches:
            for name, count in batch.counts.items():
                local[name] = local.get(name, 0.0) + (0.0 if batch.dummy else float(count))
        return self.run.world.sums(local, axis="data")

    def reduced(self, sums: dict[str, Tensor]) -> dict[str, Tensor | float]:
        """Sum each term over all processes; "loss" is the total that was trained on."""
        names = sorted(sums)
        values = self.run.world.sum(torch.stack([sums[name].detach().float() for name in names]), axis="data")
        return dict(zip(names, values, strict=True))

    def record(self, metrics: dict[str, Tensor | float]) -> StepRecord:
        """Return the record of a step for loggers."""
        step, tokens = self.run.step, self.state.tokens
        log = step % self.run.core.logging_steps == 0 or step == self.state.total_steps
        metrics["tokens_per_second"] = (tokens - self._counted) / max(self._seconds, 1e-9)
        if self.run.world.size > 1:
            metrics["speed/tokens_per_second_per_device"] = metrics["tokens_per_second"] / self.run.world.size
        if log:
            metrics |= self.speed.metrics()
            self._seconds, self._counted = 0.0, tokens
        return StepRecord(step, self.state.epoch, metrics, None, log)

    def publish(self, record: StepRecord) -> None:
        """Let plugins add to the record of a step; if it is logged or evaluated, give it to the loggers."""
        run = self.run
        run.hooks.on_step(run, self.policy, record)
        self.write(record)

    def write(self, record: StepRecord) -> None:
        """Give the record of a step that is logged or evaluated to the loggers, on the main process."""
        if self.run.world.main and (record.log or record.evaluation is not None):
            values = record.for_loggers()
            self.history.append(values)
            self.run.hooks.write_log(self.run, values)

    # the whole run

    def fit(self) -> None:
        """Train to the last step, evaluating and saving as configured. Raises Interrupted after a signal."""
        run, core, state = self.run, self.run.core, self.state
        save_every = self.interval(core.save_steps, core.saves_per_epoch)
        eval_every = self.interval(core.eval_steps, core.evals_per_epoch)
        evaluates = (run.data is not None and run.data.eval is not None) or run.hooks.has("evaluate")
        self._counted = state.tokens
        if evaluates and core.eval_on_start and run.step == 0:
            self.evaluate_first()
        while run.step < state.total_steps and not run.stopped:
            self.current = run.step + 1
            state.settle(wait=False)
            record = self.step()
            with self.keeping():
                self.idle = nonfinite.count_idle(run, self.idle, record.metrics["grad_norm"])
            last = run.step == state.total_steps
            improved = False
            if evaluates and (last or (eval_every and run.step % eval_every == 0)):
                with self.keeping(together=False):
                    held = run.data.eval if run.data else None
                    with state.evaluated():
                        record.evaluation = evaluate(run, self.policy, held, state.rounds)
            self.publish(record)
            if record.evaluation is not None:
                with self.keeping():
                    check_declared(run, record.evaluation)
                    improved = state.best.update(run, record.evaluation)
            stop = self.signalled()
            best = improved and core.load_best_model_at_end
            due = best or last or run.checkpoint_requested or (save_every and run.step % save_every == 0)
            if stop or due or run.stopped:
                run.checkpoint_requested = False
                run.progress("saving a checkpoint")
                state.save() if stop or last or run.stopped else state.save_later()
                stop = stop or self.signalled()  # a signal that arrived while saving: do not take another step
            if stop:
                state.settle()
                raise Interrupted(stop)

    def evaluate_first(self) -> None:
        """Evaluate before the first step, and give the result to the loggers as step 0. on_step is not called."""
        run = self.run
        evaluation = evaluate(run, self.policy, run.data.eval if run.data else None, self.state.rounds)
        self.write(StepRecord(0, 0.0, {}, evaluation, log=False))

    @contextlib.contextmanager
    def keeping(self, together: bool = True) -> Iterator[None]:
        """Save a checkpoint if the block fails, so that no step is lost, and name it in the error.

        With together=False, the block may fail on one of several processes while the others wait for it. They can't
        save together then, and the error is raised as it is.
        """
        try:
            yield
        except Exception as error:
            if not together and self.run.world.size > 1:
                raise
            folder = self.state.save()
            if isinstance(error, TunesmithError):
                raise name_kept(error, folder) from error
            raise

    def interval(self, steps: float | None, per_epoch: int | None) -> int | None:
        """Return the steps between two events: once per epoch by default, and only at the end for a stream.

        `steps` below 1 is a share of all steps, rounded up.
        """
        rounds = self.state.rounds
        if steps is not None:
            return math.ceil(round(steps * self.state.total_steps, 6)) if steps < 1 else int(steps)
        if not rounds.per_epoch:
            return None
        return max(1, math.ceil(rounds.per_epoch * rounds.steps / (per_epoch or 1)))

    # signals

    def signalled(self) -> int | None:
        """Return the signal that any process received; the same on all of them."""
        return self.run.world.maximum(self.signals.number or 0) or None


def combine(terms: dict[str, Term], totals: dict[str, float], batch: Batch, sums: dict[str, Tensor]) -> Tensor:
    """Return the loss of a micro-batch: the sum of its terms, each divided by its count in the whole step.

    Adds to `sums`: "loss", the metrics, and each trained term by name if there are several. Raises PluginError
    if a count is unknown.
    """
    trained = [name for name, term in terms.items() if not term.metric]
    losses = []
    for name, term in terms.items():
        if isinstance(term.count, str) and term.count not in totals:
            known = ", ".join(sorted(totals))
            raise PluginError(f"term {name!r} is divided by an unknown count: {term.count!r}; counts: {known}")
        divisor = totals[term.count] if isinstance(term.count, str) else float(term.count)
        value = torch.zeros_like(term.sum) if batch.dummy else term.sum / max(divisor, 1e-12)
        if term.metric or len(trained) > 1:
            sums[name] = sums.get(name, 0.0) + value.detach()
        if not term.metric:
            losses.append(value)
    loss = torch.stack(losses).sum()
    sums["loss"] = sums.get("loss", 0.0) + loss.detach()
    return loss
