"""Rehearse a step of the active method, divided in different ways, and an export of the model."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from tunesmith.run import Run
from tunesmith_engine.batch.examples import Example, ExampleStore
from tunesmith_engine.checkpoint.disk import existing
from tunesmith_engine.checkpoint.save import check_exported
from tunesmith_engine.data.batches import build_batches
from tunesmith_engine.model.policy import Policy
from tunesmith_engine.model.reference import add_log_probabilities
from tunesmith_engine.runtime.atomic import read_again, writing
from tunesmith_engine.runtime.rng import random_state, set_random_state
from tunesmith_engine.training.loop import combine

Groups = list[list[Example]]


class Step:
    """A step of the method on some examples: its terms and gradients, however it is divided into micro-batches."""

    def __init__(self, run: Run, policy: Policy, examples: list[Example]):
        self.run, self.policy = run, policy
        self.parameters = [p for p in policy.model.parameters() if p.requires_grad]
        if run.core.precompute_ref_log_probs:
            examples = list(add_log_probabilities(run, policy, ExampleStore.collect(examples)))
        self.one, self.several = [examples], [[example] for example in examples]

    def computed(
        self, groups: Groups, share: bool = True, compute: Callable[..., Any] | None = None
    ) -> tuple[dict[str, float], Tensor]:
        """Return the trained terms by name, divided as in training, and the gradient as one vector.

        Metrics are left out: an accuracy jumps by a rounding error where two answers are equally good.
        """
        run, compute, random = self.run, compute or self.run.hooks.compute_loss, random_state()
        shares, run.shares_prompts = run.shares_prompts, run.shares_prompts and share
        try:
            batches = build_batches(run, groups, len(groups), groups[0])
            with torch.no_grad():
                run.hooks.prepare_step(run, self.policy, batches)
            names = {name for batch in batches for name in batch.counts}
            totals = run.world.sums({name: sum(float(b.counts.get(name, 0.0)) for b in batches) for name in names})
            sums: dict[str, Tensor] = {}
            metrics: set[str] = set()
            for batch in batches:
                terms = compute(run=run, policy=self.policy, out=self.policy(batch), batch=batch)
                metrics |= {name for name, term in terms.items() if term.metric}
                combine(terms, totals, batch, sums).backward()
            gradient = torch.cat([p.grad.float().flatten() for p in self.parameters if p.grad is not None])
        finally:
            for p in self.parameters:
                p.grad = None
            run.shares_prompts = shares
            set_random_state(random)
        return {name: float(value) for name, value in sums.items() if name not in metrics}, gradient

    def one_is_several(self) -> float:
        """Compare one micro-batch of all examples with a micro-batch for each of them."""
        return difference(self.computed(self.one), self.computed(self.several))

    def shared_is_repeated(self) -> float:
        """Compare prompts that are computed once with prompts that each completion repeats."""
        return difference(self.computed(self.one), self.computed(self.one, share=False))

    def owner(self, tolerance: float) -> str | None:
        """Return the term that changes with the division, and the plugin that it comes from.

        Wrappers are added to the method one by one, from the innermost. The first difference belongs to the last one.
        """
        hook = self.run.hooks.hooks["compute_loss"]
        for number in range(len(hook.wrappers), -1, -1):
            implementations = [*hook.wrappers[number:], *hook.answers]
            part = type(hook)(hook.name, implementations)
            (one, _), (several, _) = (self.computed(g, compute=part.call) for g in (self.one, self.several))
            changed = [name for name in one if name != "loss" and _relative(one[name], several[name]) > tolerance]
            if changed or _relative(one["loss"], several["loss"]) > tolerance:
                last = implementations[0]
                return f"{changed[0] if changed else 'the loss'} of plugin {last.plugin} ({last.location})"
        return None


def difference(values: tuple[dict[str, float], Tensor], expected: tuple[dict[str, float], Tensor]) -> float:
    """Return the largest relative difference of two steps, in a term or in the gradient."""
    terms = [_relative(values[0][name], value) for name, value in expected[0].items()]
    scale = expected[1].abs().max().clamp_min(1e-30)
    return max(*terms, float((values[1] - expected[1]).abs().max() / scale))


def _relative(value: float, expected: float) -> float:
    return abs(value - expected) / max(1.0, abs(expected))  # a term near 0 has the rounding errors of its summands


def export_is_trained(run: Run, policy: Policy) -> float:
    """Write the model as a checkpoint would, into a folder that is deleted, and read it again.

    Return the largest relative difference between trained parameters and exported tensors of the same name. Raises
    PluginError for a trained parameter that no plugin saves, and EnvironmentProblem for a file that can't be read.
    """
    check_exported(run, policy)
    place = existing(run.output_dir)
    largest = 0.0
    with (
        writing("a rehearsal of the export", place, "make room"),
        tempfile.TemporaryDirectory(prefix=".verify-", dir=place) as name,
    ):
        folder = Path(name)
        run.hooks.save_model(run, policy, folder)
        read_again(folder)
        trained = {n: p.detach() for n, p in policy.model.named_parameters() if p.requires_grad}
        for path in folder.rglob("*.safetensors"):
            with safe_open(path, "pt") as file:
                for key in trained.keys() & set(file.keys()):
                    value, expected = file.get_tensor(key).float(), trained[key].float().cpu()
                    if value.shape == expected.shape:
                        change = (value - expected).abs().max() / expected.abs().max().clamp_min(1e-30)
                        largest = max(largest, float(change))
    return largest
