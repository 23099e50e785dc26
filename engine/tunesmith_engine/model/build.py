"""Build the policy of a prepared run: load, patch and wrap it, and set up the reference if one is needed."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator

from torch import nn

from tunesmith.errors import ConfigError
from tunesmith.plugins.plugin import Needs
from tunesmith.run import Run
from tunesmith_engine.model import parallelism, prompt_learning
from tunesmith_engine.model.language_model import LanguageModel
from tunesmith_engine.model.policy import Policy
from tunesmith_engine.model.reference import is_copied
from tunesmith_engine.runtime.rng import random_state, seed_everything, set_random_state


def build_policy(run: Run) -> Policy:
    """Load the policy, let plugins patch it, wrap it, and set up the reference if a plugin needs one."""
    run.hooks.configure(run)
    seed_everything(run.core.seed)
    language_model = run.hooks.load_model(run, "policy")
    language_model.module = run.hooks.patch_model(run, language_model.module)
    prompt_learning.refuse(language_model.module)
    run.shares_prompts = language_model.shares_prompts
    if not run.shares_prompts:
        run.note("prompts are repeated", f"the attention backend {language_model.attention} can't share them")
    if not any(p.requires_grad for p in language_model.module.parameters()):
        raise ConfigError("no parameter is trained", help="a plugin froze all parameters: see `tunesmith hooks`")
    reference = _reference(run, language_model) if is_copied(run) else None
    policy = Policy(run, language_model, run.needs)
    policy.module = parallelism.wrap(run.world, policy.module)  # type: ignore[arg-type]
    if reference is not None:
        reference.module = parallelism.wrap(run.world, reference.module, training=False)  # type: ignore[arg-type]
        policy.set_reference(reference)
    return policy


@contextlib.contextmanager
def abstract_model(run: Run) -> Iterator[LanguageModel]:
    """Build the patched policy on the meta device, for counting. After the block, the run is as before."""
    run.abstract, adapter = True, run.adapter
    try:
        with run.alive():
            run.hooks.configure(run)
            language_model = run.hooks.load_model(run, "policy")
            language_model.module = run.hooks.patch_model(run, language_model.module)
            prompt_learning.refuse(language_model.module)
            run.shares_prompts = language_model.shares_prompts
            yield language_model
    finally:
        run.abstract, run.adapter, run.states = False, adapter, {}


def _reference(run: Run, policy: LanguageModel) -> Policy:
    """Build a frozen copy of the model that training starts from."""
    language_model = load_again(run)
    if language_model.module is policy.module:
        language_model = copy.copy(language_model)
        language_model.module = copy.deepcopy(language_model.module)
    language_model.module.requires_grad_(False)
    language_model.module.eval()
    return Policy(run, language_model, Needs(logps=True))


def load_again(run: Run) -> LanguageModel:
    """Load the model that training starts from once more, with the same random initialization."""
    random = random_state()
    seed_everything(run.core.seed)
    language_model = run.hooks.load_model(run, "reference")
    set_random_state(random)
    return language_model


def count_parameters(module: nn.Module) -> tuple[int, int]:
    """Return the number of parameters, and of those that are trained."""
    sizes = [(p.numel(), p.requires_grad) for p in module.parameters()]
    return sum(n for n, _ in sizes), sum(n for n, trained in sizes if trained)
