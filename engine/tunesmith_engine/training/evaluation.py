"""Evaluate on held-out examples and by plugins, and remember the best evaluation."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from tunesmith.checks import declared_metrics, holds_out, names_pending, unmeasured
from tunesmith.errors import PluginError
from tunesmith.run import Run
from tunesmith_engine.batch.examples import Example, ExampleStore
from tunesmith_engine.batch.terms import Term
from tunesmith_engine.data.batches import Packs, build_batches, micro_batches, repack
from tunesmith_engine.model.policy import Policy
from tunesmith_engine.rounds.rollout import Rollouts
from tunesmith_engine.rounds.rounds import Rounds
from tunesmith_engine.runtime.rng import random_state, set_random_state


@dataclass
class _Mean:
    """The sum of a term and the number that it is divided by, over micro-batches."""

    sum: float = 0.0
    count: float = 0.0
    fixed: float | None = None
    metric: bool = False

    def add(self, term: Term, counts: dict[str, float]) -> None:
        self.sum += float(term.sum)
        if isinstance(term.count, str):
            self.count += counts[term.count]
        else:
            self.fixed = float(term.count)  # once for the full evaluation, as for a full step


def evaluate(run: Run, policy: Policy, held: ExampleStore | None, rounds: Rounds) -> dict[str, float]:
    """Return what an evaluation measures: {"eval_loss": ...}. Call it on all processes.

    It contains the average of every term over the held-out examples, if there are any, and what plugins measure. The
    state of the random number generators and the mode of the model are restored at the end, so training does not depend
    on how often it is evaluated. Raises PluginError for names that two of them return.
    """
    with _apart(run, policy):
        terms = average_terms(run, policy, held, rounds) if held is not None else {}
        measured = _measured(run, policy, held) if run.hooks.has("evaluate") else {}
    if both := sorted(terms.keys() & measured.keys()):
        raise PluginError(f"an evaluation returns {both[0]!r}, which is also a term of the loss", help="rename one")
    return terms | measured


@contextlib.contextmanager
def _apart(run: Run, policy: Policy) -> Iterator[None]:
    """Run the block in evaluation mode and without gradients; restore mode and random state at its end."""
    random, training = random_state(), policy.model.training
    policy.model.eval()
    run.purpose = "eval"
    try:
        with torch.no_grad():
            yield
    finally:
        run.purpose = "train"
        policy.model.train(training)
        set_random_state(random)


def average_terms(run: Run, policy: Policy, held: Sequence[Example], rounds: Rounds) -> dict[str, float]:
    """Return the average of every term over the held-out examples: {"eval_loss": ...}.

    For an online method, groups of completions are generated for them, and the result has their rewards too. A method
    that uses statistics of the full step in prepare_step sees one micro-batch at a time here.
    """
    means: dict[str, _Mean] = {}
    examples, rollout = list(held), dict[str, float]()
    if isinstance(rounds, Rollouts):
        examples, rollout = rounds.evaluate(examples)
    groups, number = _micro_batches(run, examples)
    for index in range(number):
        run.progress("evaluating", index, number)
        batch = build_batches(run, groups[index : index + 1], 1, examples)[0]
        run.hooks.prepare_step(run, policy, [batch])
        for name, term in run.hooks.compute_loss(run, policy, policy(batch), batch).items():
            mean = means.setdefault(name, _Mean(metric=term.metric))
            if not batch.dummy:
                mean.add(term, batch.counts)
    local = {f"{name}/{k}": getattr(mean, k) for name, mean in means.items() for k in ("sum", "count")}
    sums = run.world.sums(local, axis="data")
    values = {name: sums[f"{name}/sum"] / (m.fixed or max(sums[f"{name}/count"], 1e-12)) for name, m in means.items()}
    trained = [name for name, mean in means.items() if not mean.metric]
    shown = {name: v for name, v in values.items() if name not in trained or len(trained) > 1}
    measured = {"loss": sum(values[name] for name in trained)} | shown | rollout
    return {f"eval_{name}": value for name, value in measured.items()}


def _measured(run: Run, policy: Policy, held: ExampleStore | None) -> dict[str, float]:
    """Return what the evaluate hooks of the main process return, by name with the prefix eval_."""
    measured: dict[str, float] = {}
    for answer in run.hooks.evaluate(run, policy, held if held is not None else []):
        measured |= {f"eval_{name}": float(value) for name, value in answer.items()}
    # A plugin may measure on one process only, and sums in another order differ in the last bit. The choice of the best
    # checkpoint has to be the same everywhere.
    measured = run.world.gather(measured)[0]
    if unknown := sorted(measured.keys() - declared_metrics(run, "evaluate").keys()):
        name = unknown[0].removeprefix("eval_")
        raise PluginError(
            f"evaluate returned {name!r}, which no plugin declares", help=f'declare it: Plugin(metrics=("{name}",))'
        )
    return measured


def check_declared(run: Run, evaluation: dict[str, float]) -> None:
    """Raise PluginError if an evaluation has not every name that the plugins that evaluate declare."""
    excused = set(run.hooks.muted)
    if not holds_out(run):  # there are no terms either
        excused |= {call.plugin for call in run.hooks.calls("compute_loss")}
    for name, plugin in declared_metrics(run, "evaluate").items():
        if name not in evaluation and plugin not in excused:
            message = f"plugin {run.hooks.by_name[plugin]} declares the metric {name.removeprefix('eval_')!r}"
            raise PluginError(f"{message}, and no evaluation returned it", help="return it from evaluate")


def check_metric(run: Run, policy: Policy, rounds: Rounds) -> None:
    """Raise ConfigError before the first step if metric_for_best_model is not measured.

    A method may not declare the names of its terms. They are known once compute_loss has run on a held-out micro-batch.
    """
    held, metric = run.data.eval if run.data else None, run.core.metric_for_best_model
    # on_step may add to an evaluation, so a name that such a plugin declares can't be ruled out here.
    declared = {"eval_loss", *declared_metrics(run, "evaluate", "on_step")}
    if held is None or metric in declared or names_pending(run):
        return
    number = (run.core.eval_batch_size or run.core.micro_batch_size) * run.world.data.size
    with _apart(run, policy):
        measured = average_terms(run, policy, held.take(range(min(len(held), number))), rounds)
    if metric not in measured:
        raise unmeasured(run, {*measured, *declared})


def _micro_batches(run: Run, examples: list[Example]) -> tuple[list[list[Example]], int]:
    """Return this process's micro-batches of held-out examples, and how many every process runs."""
    core, world = run.core, run.world
    packed = core.sample_packing if core.eval_sample_packing is None else core.eval_sample_packing
    packs: Packs = repack(run, examples) if packed else [[e] for e in examples]
    return micro_batches(packs, world.data.rank, world.data.size, core.eval_batch_size or core.micro_batch_size)


@dataclass
class Best:
    """The best evaluation so far, by metric_for_best_model."""

    value: float | None = None
    step: int | None = None

    def update(self, run: Run, evaluation: dict[str, float]) -> bool:
        """Return True if this evaluation is the best so far. Raises ConfigError if the metric is not measured."""
        core = run.core
        if core.metric_for_best_model not in evaluation:
            if core.metric_for_best_model == "eval_loss" and not holds_out(run):
                return False  # plugins measure something, and nothing was chosen to compare evaluations by
            raise unmeasured(run, evaluation)
        value = evaluation[core.metric_for_best_model]
        if math.isnan(value):
            return False
        better = self.value is None or (value > self.value if core.greater_is_better else value < self.value)
        if better:
            self.value, self.step = value, run.step
            run.best = run.step, value
        return better
