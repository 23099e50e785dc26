"""Build the models of a prepared run: load them, let plugins patch them, freeze all but the policy, and wrap them."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from tunesmith.errors import ConfigError, ModelError
from tunesmith.finding import size
from tunesmith.plugins.models import POLICY, REFERENCE, ModelSpec
from tunesmith.plugins.plugin import Needs
from tunesmith.run import Run
from tunesmith_engine.model import heads, prompt_learning
from tunesmith_engine.model.language_model import LanguageModel
from tunesmith_engine.model.policy import Policy
from tunesmith_engine.model.reference import is_copied
from tunesmith_engine.runtime.rng import random_state, seed_everything, set_random_state

FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def build_policy(run: Run) -> Policy:
    """Build the policy and the other models of `run.models`, and return the policy."""
    language_models = load_models(run)
    if not run.shares_prompts:
        attention = next(m.attention for m in language_models.values() if not m.shares_prompts)
        run.note("prompts are repeated", f"the attention backend {attention} can't share them")
    if run.trains and not any(p.requires_grad for p in language_models[POLICY].module.parameters()):
        raise ConfigError("no parameter is trained", help="a plugin froze all parameters: see `tunesmith hooks`")
    for name, language_model in language_models.items():
        check_finite(run, name, language_model)
        model = run.models[name] = handle(run, name, language_model)
        model.module = run.parallelism.wrap(model.module, training=run.trains and name == POLICY)  # type: ignore[arg-type]
        if name in run.specs:
            run.note(f"model {name!r}", f"{run.specs[name].path}, frozen: {size(bytes_of(language_model.module))}")
    run.progress("")
    return run.models[POLICY]


def check_finite(run: Run, name: str, language_model: LanguageModel) -> None:
    """Raise ModelError if a weight is NaN or infinite, before it makes the loss of every row so.

    Smallest and largest value are NaN or infinite if any value is. They take one pass over the weights (3 GB/s on a
    CPU core, ten times as fast as isfinite) and no memory.
    """
    spec = run.specs.get(name, run.policy_spec)
    for key, weight in language_model.module.named_parameters():
        # A subclass of Parameter contains quantized numbers, which have another meaning than its data type.
        values: torch.Tensor = weight.to_local() if isinstance(weight, DTensor) else weight
        values = values.detach()
        if values.numel() and values.dtype in FLOATS and type(weight) in (nn.Parameter, DTensor):
            ends = torch.stack(torch.aminmax(values))
            if not torch.isfinite(ends).all():
                message = f"{key} of {spec.path} contains numbers that are not finite (NaN or infinite)"
                help = "fetch the model again; if it was trained, start from an earlier checkpoint"
                raise ModelError(message, where=run.config.place(spec.key), help=help, code="weights")


def handle(run: Run, name: str, language_model: LanguageModel) -> Policy:
    """Return what hooks receive as a model. All but the policy compute log-probabilities if asked for nothing else."""
    needs = run.needs if name == POLICY else Needs(logps=True, temperature=run.needs.temperature)
    return Policy(run, language_model, needs, name)


def load_models(run: Run) -> dict[str, LanguageModel]:
    """Load and patch the policy, the reference if it is a model of its own, and the models that plugins asked for.

    The others are loaded with random numbers of their own, so they do not change the policy's.
    """
    run.hooks.configure(run)
    seed_everything(run.core.seed)
    spec = completed(run, run.policy_spec)
    run.progress(f"building {spec.path} without weights" if run.abstract else f"loading {spec.path}")
    policy = run.hooks.load_model(run, spec)
    check_divided(run, policy)
    heads.add(run, spec, policy)
    models = {POLICY: policy}
    given = None
    if run.given_model is not None and run.needs.reference and not run.core.precompute_ref_log_probs:
        given = load_again(run, policy)  # a copy, which has to be made before the caller's model is patched
    policy.module = run.hooks.patch_model(run, POLICY, policy.module)
    prompt_learning.refuse(policy.module)
    heads.read(run, spec, policy)  # after patch_model, because an adapter may come from a folder with heads
    if is_copied(run):  # known now, because an adapter is added as a patch
        models[REFERENCE] = given or load_again(run, policy)
    for name, spec in run.specs.items():
        run.progress(f"loading {spec.path}")
        models[name] = load_apart(run, spec)
        heads.add(run, spec, models[name])
        if spec.shares_tokens:
            check_tokens(run, spec, models[name])
    for name, model in models.items():
        if name != POLICY:
            model.module = run.hooks.patch_model(run, name, model.module)
            heads.read(run, run.specs[name], model) if name in run.specs else None
            for part in (model.module, model.heads):
                part.requires_grad_(False).eval()
    run.shares_prompts = all(
        m.shares_prompts for n, m in models.items() if n not in run.specs or run.specs[n].shares_tokens
    )
    return models


def completed(run: Run, spec: ModelSpec) -> ModelSpec:
    """Return a spec with its data type and, for the policy, the heads that the plugins need.

    Trained weights stay in float32; frozen ones take half of the memory.
    """
    if spec.name == POLICY:
        spec = replace(spec, heads=heads.needed(run), exports=run.method.exports)
    half = run.world.half and (run.core.adapter is not None or spec.name != POLICY or not run.trains)
    return replace(
        spec, dtype=spec.dtype or ("bfloat16" if half else "float32"), load_arguments={**spec.load_arguments}
    )


def load_apart(run: Run, spec: ModelSpec) -> LanguageModel:
    """Load a model from the run's seed, without changing the random numbers of what follows."""
    random = random_state()
    seed_everything(run.core.seed)
    language_model = run.hooks.load_model(run, completed(run, spec))
    check_divided(run, language_model)
    set_random_state(random)
    return language_model


def load_again(run: Run, policy: LanguageModel | None = None) -> LanguageModel:
    """Load the model that training starts from once more, with the same random initialization."""
    language_model = load_apart(run, replace(run.policy_spec, name=REFERENCE))
    if policy is not None and language_model.module is policy.module:  # the caller's own LanguageModel
        language_model = copy.copy(language_model)
        language_model.module = copy.deepcopy(language_model.module)
        language_model.heads = nn.ModuleDict()
    return language_model


def check_divided(run: Run, language_model: LanguageModel) -> None:
    """Raise ConfigError if layers or experts were to be divided over processes, and the model's are complete."""
    if run.world.size == 1 or run.abstract:
        return
    meshes = {"tensor_parallel_size": run.parallelism.tensor, "expert_parallel_size": run.parallelism.expert}
    for key, mesh in meshes.items():
        weights = (p for p in language_model.module.parameters() if isinstance(p, DTensor))
        if getattr(run.core, key) > 1 and not any(weight.device_mesh == mesh for weight in weights):
            message = f"{type(language_model).__name__} under {run.world.kind} has complete layers on each process"
            raise run.config.error(key, message, "drop it, or load the model with the plugin hf, under FSDP2 or DDP")


def check_tokens(run: Run, spec: ModelSpec, language_model: LanguageModel) -> None:
    """Raise ModelError if the tokenizer of the run has ids that a model does not know."""
    tokens = len(run.tokenizer) if hasattr(run.tokenizer, "__len__") else 0
    if language_model.vocabulary is not None and language_model.vocabulary < tokens:
        message = (
            f"{spec.name} {spec.path} predicts {language_model.vocabulary:,} tokens, but the tokenizer has {tokens:,}"
        )
        help = "choose a model with the tokenizer of base_model"
        raise ModelError(message, where=run.config.place(spec.key), help=help)


@contextlib.contextmanager
def abstract_models(run: Run) -> Iterator[dict[str, LanguageModel]]:
    """Build the patched models on the meta device, for counting. After the block, the run is as before."""
    run.abstract, adapter, models = True, run.adapter, run.models
    run.models = {}
    try:
        with run.alive():
            yield load_models(run)
    finally:
        run.abstract, run.adapter, run.states, run.models = False, adapter, {}, models


def count_parameters(module: nn.Module) -> tuple[int, int]:
    """Return the number of parameters, and of those that are trained."""
    sizes = [(p.numel(), p.requires_grad) for p in module.parameters()]
    return sum(n for n, _ in sizes), sum(n for n, trained in sizes if trained)


def bytes_of(module: nn.Module) -> int:
    """Return the bytes of the parameters of a module."""
    return sum(p.numel() * p.element_size() for p in module.parameters())
