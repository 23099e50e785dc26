"""The reference of a method, and its log-probabilities if they are computed once, before the first step.

With `precompute_ref_log_probs: true`, the model that training starts from runs over all examples. The log-probability
of each token is stored next to the prepared data, under a fingerprint of the examples and the model's weights, and is
read from there by the next run.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from hashlib import sha256
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from tunesmith.config.config import digest
from tunesmith.errors import PluginError
from tunesmith.finding import size
from tunesmith.plugins.models import REFERENCE
from tunesmith.plugins.plugin import Needs
from tunesmith.run import Run
from tunesmith_engine.batch.batch import Batch
from tunesmith_engine.batch.examples import Example, ExampleStore, Segment
from tunesmith_engine.data.cache import filling
from tunesmith_engine.model.inference import score
from tunesmith_engine.model.language_model import LanguageModel
from tunesmith_engine.model.policy import Output, Policy
from tunesmith_engine.runtime.atomic import why_invalid, writing


def is_copied(run: Run) -> bool:
    """Return True if the reference is a second model in memory."""
    return run.needs.reference and run.adapter is None and not run.core.precompute_ref_log_probs


def describe(run: Run, models: Mapping[str, LanguageModel]) -> str:
    """Return what the reference is and what it costs, for `plan`. `models` are those of the run."""
    if not run.needs.reference:
        return "none"
    if run.core.precompute_ref_log_probs:
        stores = [s for s in (run.data.train, run.data.eval) if s is not None] if run.data else []
        stored = sum(4 * len(store.arrays["tokens"]) for store in stores)
        return f"log-probabilities, computed once before the first step: {size(stored)} of prepared data"
    if run.adapter is not None:
        state = "as it was when training began" if run.adapter.reference else "switched off"
        return f"the model below the adapter, with {run.adapter.name} {state}: no additional memory"
    parameters = models[REFERENCE].module.parameters()
    return f"a frozen copy of the model: {size(sum(p.numel() * p.element_size() for p in parameters))}"


class Precomputed(Policy):
    """A reference without a forward: it looks up the log-probabilities of a batch's tokens."""

    def __call__(self, batch: Batch, needs: Needs | None = None) -> Output:
        if needs not in (None, Needs(logps=True)):
            help = "remove precompute_ref_log_probs"
            raise PluginError("a precomputed reference has only log-probabilities of tokens", help=help)
        if batch.reference is None:
            raise PluginError("a batch has examples without precomputed log-probabilities of the reference")
        return Output({"logps": batch.reference[batch.target_at]})


def precompute(run: Run, policy: Policy) -> None:
    """Add the reference's log-probability of each token to the prepared examples, and let the policy look them up.

    The policy must be as training starts from it. Call it on all processes.
    """
    assert run.data is not None and run.data.content  # compute the hash of the data before a column is added to it
    stores = {name: s for name in ("train", "eval") if (s := getattr(run.data, name)) is not None}
    folder = None
    if run.core.dataset_prepared_path:
        identity = run.world.gather(fingerprint(run, policy, list(stores.values())))[0]
        folder = Path(run.core.dataset_prepared_path) / f"reference-{identity[:20]}"
    # The main process checks the hashes. The others only check that they see the folder: without a shared file system,
    # all processes compute, because a forward under sharding needs every one of them.
    valid = folder is not None and run.world.gather(run.world.main and why_invalid(folder) is None)[0]
    if folder is not None and all(run.world.gather(valid and folder.is_dir())):
        values = {name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in stores}
        run.note("reference log-probabilities", f"from {folder}")
    else:
        started = time.monotonic()
        values = {name: compute(run, policy, store) for name, store in stores.items()}
        where = f"kept in {folder}" if folder else "not kept for later runs: dataset_prepared_path is not set"
        run.note("reference log-probabilities", f"computed in {time.monotonic() - started:.0f} s; {where}")
        if folder is not None and run.world.main:
            keep(folder, values)
    for name, store in stores.items():
        setattr(run.data, name, ExampleStore(store.arrays | {"token.reference": values[name]}, store.fields))
    run.models[REFERENCE] = Precomputed(run, policy.language_model, Needs(logps=True))


def add_log_probabilities(run: Run, policy: Policy, store: ExampleStore) -> ExampleStore:
    """Return a store with the reference's log-probability of each token, which the policy looks up from now on."""
    values = compute(run, policy, store)
    run.models[REFERENCE] = Precomputed(run, policy.language_model, Needs(logps=True))
    return ExampleStore(store.arrays | {"token.reference": values}, store.fields)


def keep(folder: Path, values: dict[str, NDArray[np.float32]]) -> None:
    """Store log-probabilities for later runs. Raises EnvironmentProblem if the disk refuses it."""
    help = "make room there, or choose another dataset_prepared_path"
    disk = writing(f"reference log-probabilities in {folder.parent}", folder.parent, help)
    with disk, filling(folder, lambda: why_invalid(folder) is None) as partial:
        for name, array in values.items():
            np.save(partial / f"{name}.npy", array, allow_pickle=False)


def compute(run: Run, policy: Policy, store: ExampleStore) -> NDArray[np.float32]:
    """Return the reference's log-probability [T] of each token of a store.

    It is NaN for tokens of prompts, and for the first token of a text, which nothing predicts.
    """
    with policy.reference() if run.adapter is not None else contextlib.nullcontext(policy) as reference:
        rows = score(reference, [_all_scored(store[i]) for i in range(len(store))], Needs(logps=True))
    parts = []
    for example, segments in zip(store, rows, strict=True):
        parts.append(np.full(len(example.segments[0].tokens), np.nan, np.float32))
        parts += [values["logps"] for values in segments]
    return np.concatenate(parts)


def _all_scored(example: Example) -> Example:
    """Return the example with weight 1 on all tokens after the prompt: KTO's baseline also uses untrained ones."""
    completions = [
        Segment(s.tokens, np.ones(len(s.tokens), np.float32), s.parent, s.fork) for s in example.segments[1:]
    ]
    return Example([example.segments[0], *completions], inputs=example.inputs)


def fingerprint(run: Run, policy: Policy, stores: list[ExampleStore]) -> str:
    """Return a hash of the examples, the reference's weights, and what it computes with. Call it on all processes."""
    # Buffers that are not in the state, too: the scales of quantized weights, which change what these mean.
    weights = {**dict(policy.model.named_buffers()), **policy.state_dict()}
    # The trained weights are the adapter's. The reference does not have them, so another seed of the adapter finds the
    # same values.
    trained = {name for name, p in policy.model.named_parameters() if p.requires_grad} if run.adapter else set()
    weights_hash = sha256()
    for name, value in sorted(weights.items()) if run.world.main else ():
        if name not in trained:
            weights_hash.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
            weights_hash.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    makers = [[call.plugin, call.version] for hook in ("load_model", "patch_model") for call in run.hooks.calls(hook)]
    versions = [metadata.version(name) for name in ("tunesmith-engine", "torch")]
    return digest([[s.content() for s in stores], weights_hash.hexdigest(), run.world.half, makers, versions])
