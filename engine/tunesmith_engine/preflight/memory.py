"""What a step will take at its peak, by component: a real step on tensors that have shapes and no content.

Every storage that an operation makes is counted while it lives, so nothing is left to a formula: attention, adapters,
gradient checkpointing, the optimizer of whichever plugin, a method's own tensors.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tunesmith.plugins.plugin import Needs
from tunesmith.run import Run
from tunesmith_engine.batch.batch import Batch, collate
from tunesmith_engine.batch.examples import Example, segment
from tunesmith_engine.data.loader import Loader, StoredLoader
from tunesmith_engine.model.build import abstract_model
from tunesmith_engine.model.parallelism import clip_gradients
from tunesmith_engine.model.policy import Policy
from tunesmith_engine.model.reference import Precomputed, is_copied

COMPONENTS = ("weights", "gradients", "optimizer", "activations", "loss")


class Meter(TorchDispatchMode):
    """Counts the bytes of storages while they live, by kind; `peak` is the moment when they were most."""

    def __init__(self, vocabulary: int):
        super().__init__()  # type: ignore[no-untyped-call]
        self.vocabulary = vocabulary
        self.kinds: dict[int, tuple[str, int]] = {}
        self.now = dict.fromkeys(COMPONENTS, 0)
        self.peak = dict(self.now)
        self.guesses = False
        """Whether a number that nobody has is 1 instead of an error: in prepare_step, for statistics of the step."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = self.result(func, args, kwargs or {})
        for value in tree_leaves(out):
            if isinstance(value, Tensor):
                self.see(value)
        return out

    def result(self, func: Any, args: Any, kwargs: Any) -> Any:
        """An operation's result without content where an input has none, and for real where all have: a method may ask
        what is in the rows."""
        tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        if tensors and not any(isinstance(tensor, FakeTensor) for tensor in tensors):
            with unset_fake_temporarily():
                return func(*args, **kwargs)
        if self.guesses and func is torch.ops.aten._local_scalar_dense.default:
            return 1.0 if tensors[0].dtype.is_floating_point else 1
        if func is torch.ops.aten.index.Tensor:  # values chosen by what is in the rows: it is known which
            args = (args[0], [place for index in args[1] for place in _places(index)])
        return func(*args, **kwargs)

    def see(self, tensor: Tensor, kind: str | None = None) -> None:
        """Count a tensor's storage, if it is new; with `kind`, count it as that from now on."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self.kinds:
            before, size = self.kinds[key]
            if kind is None or kind == before:
                return
            self.now[before] -= size
        else:
            size = storage.nbytes()
            weakref.finalize(storage, self.gone, key)
        # What is as wide as the vocabulary is a chunk of logits, or made of one.
        wide = tensor.ndim > 0 and tensor.shape[-1] == self.vocabulary
        kind = kind or ("loss" if wide else "activations")
        self.kinds[key] = (kind, size)
        self.now[kind] += size
        if sum(self.now.values()) > sum(self.peak.values()):
            self.peak = dict(self.now)

    def gone(self, key: int) -> None:
        kind, size = self.kinds.pop(key)
        self.now[kind] -= size


def _places(index: Tensor | None) -> Sequence[Tensor | None]:
    """A mask that is known as the places where it is true."""
    if isinstance(index, Tensor) and index.dtype == torch.bool and not isinstance(index, FakeTensor):
        with unset_fake_temporarily():
            return index.nonzero().unbind(1)
    return [index]


def peak_memory(run: Run, loader: Loader) -> dict[str, int]:
    """Bytes on one device at the peak of a step on the largest micro-batch, by component, and that batch's tokens.

    Weights that are shared over processes count whole; generation for online methods is not in it.
    """
    batch = largest(run, loader)
    with abstract_model(run) as language_model, FakeTensorMode(allow_non_fake_inputs=True):
        materialise(language_model.module, run.device)
        meter = Meter(vocabulary(language_model.module))
        with meter, torch.autocast(run.device.type, torch.bfloat16, enabled=run.world.half):
            for tensor in [*language_model.module.parameters(), *language_model.module.buffers()]:
                meter.see(tensor, "weights")
            policy = Policy(run, language_model, run.needs)
            if is_copied(run):
                policy.set_reference(Policy(run, language_model, Needs(logps=True)))  # its weights are counted below
            elif run.core.precompute_ref_log_probs:
                policy.set_reference(Precomputed(run, language_model, Needs(logps=True)))
            take_steps(run, policy, batch, meter)
        copied = is_copied(run)
    found = {**meter.peak, "total": sum(meter.peak.values()), "tokens": batch.tokens}
    if copied:
        found["reference"] = meter.peak["weights"]
        found["total"] += found["reference"]
    return found


def take_steps(run: Run, policy: Policy, batch: Batch, meter: Meter, number: int = 2) -> None:
    """Forward, backward and update: the first makes the optimizer's state, so the second is like all that follow."""
    optimizer = run.hooks.build_optimizer(run, policy.model)
    trained = [p for p in policy.model.parameters() if p.requires_grad]
    for parameter in trained:
        parameter.register_post_accumulate_grad_hook(lambda p: meter.see(p.grad, "gradients"))
    policy.model.train()
    for _ in range(number):
        for _ in range(min(run.core.gradient_accumulation_steps, 2)):  # from the second on, gradients are there already
            made = replace(batch, columns=dict(batch.columns), counts={})  # a method may take tokens out of it
            with torch.no_grad():
                meter.guesses = True
                run.hooks.prepare_step(run, policy, [made])
                meter.guesses = False
            terms = run.hooks.compute_loss(run, policy, policy(made), made)
            torch.stack([term.sum for term in terms.values() if not term.metric]).sum().backward()
            del terms
        clip_gradients(trained, run.core.max_grad_norm)
        optimizer.step()
        for state in optimizer.state.values():
            for value in tree_leaves(state):
                if isinstance(value, Tensor):
                    meter.see(value, "optimizer")
        optimizer.zero_grad(set_to_none=True)


def materialise(module: nn.Module, device: torch.device) -> None:
    """Put tensors of the meta device on another one, without content; what is shared stays shared."""
    made: dict[int, Any] = {}
    for part in module.modules():
        for tensors in (part._parameters, part._buffers):
            for name, tensor in tensors.items():
                if tensor is None:
                    continue
                if id(tensor) not in made:
                    empty = torch.empty_like(tensor, device=device)
                    whole = nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty
                    made[id(tensor)] = whole
                tensors[name] = made[id(tensor)]


def vocabulary(module: Any) -> int:
    """Width of the logits."""
    return int(module.get_input_embeddings().num_embeddings)


def largest(run: Run, loader: Loader) -> Batch:
    """The micro-batch with the most tokens; of a stream, one of full rows."""
    size = run.core.micro_batch_size
    if isinstance(loader, StoredLoader):
        rows, widths = loader.packs_of(0), loader.store.widths
        groups = [[i for row in rows[at : at + size] for i in row] for at in range(0, len(rows), size)]
        examples = [loader.store[i] for i in max(groups, key=lambda group: int(widths[group].sum()))]
    else:
        tokens = np.zeros(run.core.sequence_len, np.int32)
        examples = [Example([segment([]), segment(tokens, np.ones(len(tokens), np.float32))])] * size
    batch = collate(examples, share=run.shares_prompts, score_points=run.needs.scores)
    if run.core.precompute_ref_log_probs:  # not yet, but for counting any numbers will do
        batch.reference = torch.zeros(batch.tokens)
    return batch.to(run.device)
