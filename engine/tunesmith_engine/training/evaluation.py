"""Evaluate on held-out examples, and remember the best evaluation."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from tunesmith.run import Run
from tunesmith.spelling import nearest
from tunesmith_engine.batch.examples import Example, ExampleStore
from tunesmith_engine.batch.terms import Term
from tunesmith_engine.data.loader import Packs, build_batches, micro_batches, repack
from tunesmith_engine.model.policy import Policy
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


def evaluate(run: Run, policy: Policy, held: ExampleStore) -> dict[str, float]:
    """Return the average of every term over the held-out examples: {"eval_loss": ..., ...}.

    A method that uses statistics of the full step in prepare_step sees one micro-batch at a time here. The state of the
    random number generators is restored at the end, so training does not depend on how often it is evaluated.
    """
    means: dict[str, _Mean] = {}
    random = random_state()
    policy.model.eval()
    with torch.no_grad():
        groups, number, spare = _held_out(run, policy, held)
        for index in range(number):
            batch = build_batches(run, groups[index : index + 1], 1, spare)[0]
            run.hooks.prepare_step(run, policy, [batch])
            for name, term in run.hooks.compute_loss(run, policy, policy(batch), batch).items():
                mean = means.setdefault(name, _Mean(metric=term.metric))
                if not batch.dummy:
                    mean.add(term, batch.counts)
    set_random_state(random)
    local = {f"{name}/{k}": getattr(mean, k) for name, mean in means.items() for k in ("sum", "count")}
    sums = run.world.sums(local, axis="data")
    values = {name: sums[f"{name}/sum"] / (m.fixed or max(sums[f"{name}/count"], 1e-12)) for name, m in means.items()}
    trained = [name for name, mean in means.items() if not mean.metric]
    shown = {name: v for name, v in values.items() if name not in trained or len(trained) > 1}
    return {f"eval_{name}": v for name, v in ({"loss": sum(values[name] for name in trained)} | shown).items()}


def _held_out(run: Run, policy: Policy, held: ExampleStore) -> tuple[list[list[Example]], int, list[Example]]:
    """Return this process's micro-batches of held-out examples, how many every process runs, and spare examples."""
    core, world = run.core, run.world
    size = core.eval_batch_size or core.micro_batch_size
    rank, processes = world.data.rank, world.data.size
    examples: list[Example] = list(held)
    if run.hooks.has("expand"):
        own = examples[rank::processes]
        examples = run.hooks.expand(run, policy, own or examples[:1])
        rank, processes = 0, 1
        if not own:
            return [], world.maximum(0), examples
    packed = core.sample_packing if core.eval_sample_packing is None else core.eval_sample_packing
    packs: Packs = repack(run, examples) if packed else [[e] for e in examples]
    groups, number = micro_batches(packs, rank, processes, size)
    return groups, world.maximum(number), examples


@dataclass
class Best:
    """The best evaluation so far, by metric_for_best_model."""

    value: float | None = None
    step: int | None = None

    def update(self, run: Run, evaluation: dict[str, float]) -> bool:
        """Return True if this evaluation is the best so far. Raises ConfigError if the metric is not measured."""
        core = run.core
        if core.metric_for_best_model not in evaluation:
            close = nearest(core.metric_for_best_model, set(evaluation))
            help = f"did you mean {close!r}?" if close else "write one of them"
            measured = ", ".join(evaluation)
            raise run.config.error("metric_for_best_model", f"is not measured; measured: {measured}", help)
        value = evaluation[core.metric_for_best_model]
        if math.isnan(value):
            return False
        better = self.value is None or (value > self.value if core.greater_is_better else value < self.value)
        if better:
            self.value, self.step = value, run.step
        return better
