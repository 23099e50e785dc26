"""Which model a method is held to, and its log-probabilities where they are computed once, before the first step.

`precompute_ref_log_probs: true` runs the model that training starts from over all examples, keeps what it says of each
token beside the prepared data, under a fingerprint of the examples and of its weights, and reads it there next time.
"""

from __future__ import annotations

import time
from hashlib import sha256
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tunesmith.config.load import digest
from tunesmith.errors import PluginError
from tunesmith.finding import size
from tunesmith.plugins.plugin import Needs
from tunesmith.run import Run
from tunesmith_engine.batch.batch import Batch
from tunesmith_engine.batch.examples import Example, ExampleStore, Segment
from tunesmith_engine.batch.packing import pack
from tunesmith_engine.data.cache import filling
from tunesmith_engine.data.loader import build_batches
from tunesmith_engine.model.policy import Output, Policy
from tunesmith_engine.runtime.atomic import complaint, writing


def is_copied(run: Run) -> bool:
    """Whether a second model is held in memory, for what a method is held to."""
    return run.needs.reference and run.adapter is None and not run.core.precompute_ref_log_probs


def told(run: Run, module: nn.Module) -> str:
    """What the reference is and takes, for `plan`; the model has been patched."""
    if not run.needs.reference:
        return "none"
    if run.core.precompute_ref_log_probs:
        stores = [s for s in (run.data.train, run.data.eval) if s is not None] if run.data else []
        kept = sum(4 * len(store.arrays["tokens"]) for store in stores)
        return f"log-probabilities, computed once before the first step: {size(kept)} of prepared data"
    if run.adapter is not None:
        state = "as it was when training began" if run.adapter.reference else "switched off"
        return f"the model below the adapter, with {run.adapter.name} {state}: no memory of its own"
    return f"a frozen copy of the model: {size(sum(p.numel() * p.element_size() for p in module.parameters()))}"


class Precomputed(Policy):
    """A reference that only remembers: log-probabilities of the tokens of a batch, and no forward."""

    def __call__(self, batch: Batch, needs: Needs | None = None) -> Output:
        if needs not in (None, Needs(logps=True)):
            help = "drop precompute_ref_log_probs"
            raise PluginError("a reference that was computed before knows log-probabilities of tokens alone", help=help)
        if batch.reference is None:
            raise PluginError("the reference was asked for examples that it did not see before the first step")
        return Output({"logps": batch.reference[batch.target_at]})


def precompute(run: Run, policy: Policy) -> None:
    """Give the prepared examples the reference's log-probability of each token, and the policy a reference that knows
    them. The policy is as training starts from it. On all processes."""
    assert run.data is not None and run.data.content  # named before tokens have a column more
    stores = {name: s for name in ("train", "eval") if (s := getattr(run.data, name)) is not None}
    folder = None
    if run.core.dataset_prepared_path:
        known = run.world.gather(fingerprint(run, policy, list(stores.values())))[0]
        folder = Path(run.core.dataset_prepared_path) / f"reference-{known[:20]}"
    whole = folder is not None and run.world.gather(run.world.main and complaint(folder) is None)[0]
    if folder is not None and all(run.world.gather(whole and folder.is_dir())):
        values = {name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in stores}
        run.note("reference log-probabilities", f"from {folder}")
    else:
        started = time.monotonic()
        values = {name: compute(run, policy, store) for name, store in stores.items()}
        where = f"kept in {folder}" if folder else "kept for this run alone: dataset_prepared_path keeps them"
        run.note("reference log-probabilities", f"computed in {time.monotonic() - started:.0f} s; {where}")
        if folder is not None and run.world.main:
            keep(folder, values)
    for name, store in stores.items():
        setattr(run.data, name, ExampleStore(store.arrays | {"token.reference": values[name]}, store.fields))
    policy.set_reference(Precomputed(run, policy.language_model, Needs(logps=True)))


def keep(folder: Path, values: dict[str, NDArray[np.float32]]) -> None:
    """Keep log-probabilities for the next run."""
    help = "make room there, or choose another dataset_prepared_path"
    around = writing(f"reference log-probabilities in {folder.parent}", folder.parent, help)
    with around, filling(folder, lambda: complaint(folder) is None) as partial:
        for name, array in values.items():
            np.save(partial / f"{name}.npy", array, allow_pickle=False)


def compute(run: Run, policy: Policy, store: ExampleStore) -> NDArray[np.float32]:
    """The reference's log-probability [T] of each token of a store; of prompts, and of what begins a text, NaN."""
    core, world = run.core, run.world
    rows = pack(store.widths, core.sequence_len) if core.sample_packing else [[i] for i in range(len(store))]
    per_batch = core.eval_batch_size or core.micro_batch_size
    groups = [[i for row in rows[at : at + per_batch] for i in row] for at in range(0, len(rows), per_batch)]
    mine: dict[int, NDArray[np.float32]] = {}
    policy.model.eval()
    with policy.reference() if run.adapter is not None else torch.no_grad():
        for first in range(0, len(groups), world.size):
            own = groups[first + world.rank : first + world.rank + 1]
            examples = [[_all_scored(store[i]) for i in group] for group in own]
            (batch,) = build_batches(run, examples, 1, [_all_scored(store[0])])
            logps = policy(batch, Needs(logps=True)).logps.float().cpu()
            counts = torch.bincount(batch.sequence, minlength=batch.sequences).tolist()
            parts = iter(logps.split(counts))
            for i, example in zip(own[0] if own else (), examples[0] if own else (), strict=True):
                prompt = np.full(len(example.segments[0].tokens), np.nan, np.float32)
                mine[i] = np.concatenate([prompt, *(_filled(s, next(parts)) for s in example.segments[1:])])
    policy.reshard()
    found = {i: part for share in world.gather(mine) for i, part in share.items()}
    return np.concatenate([found[i] for i in range(len(store))])


def _all_scored(example: Example) -> Example:
    """The same with all tokens after the prompt scored: a method may ask for those that it does not train."""
    after = [Segment(s.tokens, np.ones(len(s.tokens), np.float32), s.parent, s.fork) for s in example.segments[1:]]
    return Example([example.segments[0], *after], inputs=example.inputs)


def _filled(s: Segment, logps: Tensor) -> NDArray[np.float32]:
    """Log-probabilities of a segment's tokens; NaN for a first one that nothing predicts."""
    return np.pad(logps.numpy(), (len(s.tokens) - len(logps), 0), constant_values=np.nan)


def fingerprint(run: Run, policy: Policy, stores: list[ExampleStore]) -> str:
    """Hash of the examples, of the weights that the reference has, and of what it computes with. On all processes."""
    weights = policy.state_dict()
    trained = {name for name, p in policy.model.named_parameters() if p.requires_grad} if run.adapter else set()
    known = sha256()
    for name, value in sorted(weights.items()) if run.world.main else ():
        if name not in trained:
            known.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
            known.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    makers = [[call.plugin, call.version] for hook in ("load_model", "patch_model") for call in run.hooks.calls(hook)]
    versions = [metadata.version(name) for name in ("tunesmith-engine", "torch")]
    return digest([[s.content() for s in stores], known.hexdigest(), run.world.half, makers, versions])
