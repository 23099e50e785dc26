"""From a prepared run to a policy on its device: load, patch, wrap, and a reference where one is needed."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator

from torch import nn

from tunesmith.errors import ConfigError
from tunesmith.plugins.plugin import Needs
from tunesmith.run import Run
from tunesmith_engine.model.policy import Backbone, Policy
from tunesmith_engine.model.reference import is_copied
from tunesmith_engine.runtime.rng import random_state, seed_everything, set_random_state


def build_policy(run: Run) -> Policy:
    """Load the policy, let plugins patch it, wrap it; set up the reference that some plugin needs."""
    run.hooks.configure(run)
    seed_everything(run.core.seed)
    backbone = run.hooks.load_model(run, "policy")
    backbone.module = run.hooks.patch_model(run, backbone.module)
    run.shares_prompts = backbone.shares_prompts
    if not run.shares_prompts:
        run.note("prompts are repeated", f"the attention backend {backbone.attention} can't share them")
    if not any(p.requires_grad for p in backbone.module.parameters()):
        raise ConfigError("no parameter is trained", help="some plugin froze them all")
    reference = _reference(run, backbone) if is_copied(run) else None
    policy = Policy(run, backbone, run.needs)
    policy.root = run.world.wrap(policy.root)  # type: ignore[arg-type]
    if reference is not None:
        reference.root = run.world.wrap(reference.root, training=False)  # type: ignore[arg-type]
        policy.set_reference(reference)
    return policy


@contextlib.contextmanager
def abstract_model(run: Run) -> Iterator[Backbone]:
    """The policy on the meta device, patched: for counting. Outside the block nothing of it is left with the run."""
    run.abstract, adapter = True, run.adapter
    try:
        with run.alive():
            run.hooks.configure(run)
            backbone = run.hooks.load_model(run, "policy")
            backbone.module = run.hooks.patch_model(run, backbone.module)
            run.shares_prompts = backbone.shares_prompts
            yield backbone
    finally:
        run.abstract, run.adapter, run.states = False, adapter, {}


def _reference(run: Run, policy: Backbone) -> Policy:
    """A frozen copy of the model that training starts from."""
    backbone = load_again(run)
    if backbone.module is policy.module:
        backbone = copy.copy(backbone)
        backbone.module = copy.deepcopy(backbone.module)
    backbone.module.requires_grad_(False)
    backbone.module.eval()
    return Policy(run, backbone, Needs(logps=True))


def load_again(run: Run) -> Backbone:
    """The model that training starts from, once more: what of it is drawn at random is drawn alike."""
    random = random_state()
    seed_everything(run.core.seed)
    backbone = run.hooks.load_model(run, "reference")
    set_random_state(random)
    return backbone


def count_parameters(module: nn.Module) -> tuple[int, int]:
    """All parameters and those that are trained."""
    sizes = [(p.numel(), p.requires_grad) for p in module.parameters()]
    return sum(n for n, _ in sizes), sum(n for n, trained in sizes if trained)
