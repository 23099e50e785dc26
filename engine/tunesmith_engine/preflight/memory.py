"""Predict the peak memory of a step by component, with a real step on tensors that have shapes but no content.

The storage of every tensor is counted while it is alive. The count therefore includes attention, adapters, gradient
checkpointing, the optimizer and a method's own tensors, without a formula for any of them.
"""

from __future__ import annotations

import weakref
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tunesmith.plugins.models import POLICY, REFERENCE
from tunesmith.plugins.plugin import Needs
from tunesmith.run import Run
from tunesmith_engine.batch.batch import Batch, collate
from tunesmith_engine.batch.examples import Example, segment
from tunesmith_engine.model.build import abstract_models, handle
from tunesmith_engine.model.parallelism import clip_gradients
from tunesmith_engine.model.policy import Policy
from tunesmith_engine.model.reference import Precomputed
from tunesmith_engine.rounds.rollout import Rollouts
from tunesmith_engine.rounds.rounds import Rounds
from tunesmith_engine.rounds.stored import StoredRounds

COMPONENTS = ("weights", "gradients", "optimizer", "activations", "loss")

KEPT, KERNELS = 0.15, 20 * 2**20
"""On a CPU, the share of the peak that the C library keeps after tensors are freed, because its heap has gaps, and the
bytes of the buffers and the code of kernels that first run in a step. Measured in fresh processes: 15 % of 1.9 GB, and
20 to 24 MB for models of 0.1 MB. A GPU needs neither: its peak counts allocated tensors only."""


class Meter(TorchDispatchMode):
    """A counter of the bytes of live storages, by component. `peak` has the counts at the largest total.

    `widths` are the numbers of tokens that the models predict.
    """

    def __init__(self, widths: Collection[int | None]):
        super().__init__()  # type: ignore[no-untyped-call]
        self.widths = widths
        self.kinds: dict[int, tuple[str, int]] = {}
        self.now = dict.fromkeys(COMPONENTS, 0)
        self.peak = dict(self.now)
        self.guesses = False
        """True to read 1 from a tensor without content instead of raising an error: for statistics in prepare_step."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = self.result(func, args, kwargs or {})
        for value in tree_leaves(out):
            if isinstance(value, Tensor):
                self.see(value)
        return out

    def result(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run an operation for real if all its inputs have content, as the tokens of a batch do; otherwise without."""
        tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        if tensors and not any(isinstance(tensor, FakeTensor) for tensor in tensors):
            with unset_fake_temporarily():
                return func(*args, **kwargs)
        if self.guesses and func is torch.ops.aten._local_scalar_dense.default:  # .item()
            return 1.0 if tensors[0].dtype.is_floating_point else 1
        # values[mask] has a shape that depends on the mask. If the mask has content, the places where it is true give
        # the same values with a known shape.
        if func is torch.ops.aten.index.Tensor:
            args = (args[0], [place for index in args[1] for place in _places(index)])
        return func(*args, **kwargs)

    def see(self, tensor: Tensor, kind: str | None = None) -> None:
        """Count a tensor's storage if it is new. With `kind`, count it as that component from now on."""
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
        # Tensors as wide as the vocabulary are a chunk of logits, or computed from one.
        wide = tensor.ndim > 0 and tensor.shape[-1] in self.widths
        kind = kind or ("loss" if wide else "activations")
        self.kinds[key] = (kind, size)
        self.now[kind] = self.now.get(kind, 0) + size
        if sum(self.now.values()) > sum(self.peak.values()):
            self.peak = dict(self.now)

    def gone(self, key: int) -> None:
        kind, size = self.kinds.pop(key)
        self.now[kind] -= size


def _places(index: Tensor | None) -> Sequence[Tensor | None]:
    """Return the places where an index is true, if it is a mask with content; otherwise the index itself."""
    if isinstance(index, Tensor) and index.dtype == torch.bool and not isinstance(index, FakeTensor):
        with unset_fake_temporarily():
            return index.nonzero().unbind(1)
    return [index]


def peak_memory(run: Run, rounds: Rounds, examples: Sequence[Example] | None = None) -> dict[str, int]:
    """Return the bytes on one device at the peak of a step on the largest micro-batch, or on given examples.

    They are counted by component. A model that is not the policy is a component of its own. On a CPU, "allocator" is
    an estimate of what is needed beyond live tensors. The result also has their "total" and the number of "tokens" of
    the micro-batch. Sharded weights are counted in full. Generation by online methods is not counted.
    """
    batch = collated(run, largest_examples(run, rounds) if examples is None else examples)
    with abstract_models(run) as models, FakeTensorMode(allow_non_fake_inputs=True):
        for part in (part for model in models.values() for part in (model.module, model.heads)):
            materialize(part, run.device)
        meter = Meter({model.vocabulary for model in models.values()} - {None})
        with meter, torch.autocast(run.device.type, torch.bfloat16, enabled=run.world.half):
            for name, model in models.items():
                run.models[name] = handle(run, name, model)
                unwrapped = run.models[name].unwrapped
                for tensor in [*unwrapped.parameters(), *unwrapped.buffers()]:
                    meter.see(tensor, "weights" if name == POLICY else name)
            policy = run.models[POLICY]
            if run.core.precompute_ref_log_probs:
                run.models[REFERENCE] = Precomputed(run, policy.language_model, Needs(logps=True))
            take_steps(run, policy, batch, meter)
    peak = dict(meter.peak)
    if run.device.type == "cpu":
        peak["allocator"] = int(KEPT * sum(peak.values())) + KERNELS
    return {**peak, "total": sum(peak.values()), "tokens": batch.tokens}


def take_steps(run: Run, policy: Policy, batch: Batch, meter: Meter, number: int = 2) -> None:
    """Run forward, backward and update. The first update creates the optimizer's state; the second is a typical one."""
    meter.guesses = True  # tables of an 8-bit optimizer are read as numbers
    optimizer = run.hooks.build_optimizer(run, policy.unwrapped)
    meter.guesses = False
    count_state(optimizer, meter)
    trained = [p for p in policy.unwrapped.parameters() if p.requires_grad]
    for parameter in trained:
        parameter.register_post_accumulate_grad_hook(lambda p: meter.see(p.grad, "gradients"))
    policy.model.train()
    for _ in range(number):
        # Two micro-batches are enough: from the second on, gradients already exist during the forward.
        for _ in range(min(run.core.gradient_accumulation_steps, 2)):
            # A copy, because a method may change the columns and counts in prepare_step.
            micro_batch = replace(batch, columns=dict(batch.columns), counts={})
            with torch.no_grad():
                meter.guesses = True
                run.hooks.prepare_step(run, policy, [micro_batch])
                meter.guesses = False
            terms = run.hooks.compute_loss(run, policy, policy(micro_batch), micro_batch)
            torch.stack([term.sum for term in terms.values() if not term.metric]).sum().backward()
            del terms
        clip_gradients(trained, run.core.max_grad_norm)
        meter.guesses = True
        optimizer.step()
        meter.guesses = False
        count_state(optimizer, meter)
        optimizer.zero_grad(set_to_none=True)


def count_state(optimizer: Optimizer, meter: Meter) -> None:
    """Count the state of an optimizer. state_dict() has plain tensors, also if the state consists of other objects."""
    for value in tree_leaves(optimizer.state_dict()["state"]):
        if isinstance(value, Tensor):
            meter.see(value, "optimizer")


def materialize(module: nn.Module, device: torch.device) -> None:
    """Replace tensors of the meta device by tensors without content on another device. Shared ones stay shared."""
    replacements: dict[int, Any] = {}
    for part in module.modules():
        for tensors in (part._parameters, part._buffers):
            for name, tensor in tensors.items():
                if tensor is None:
                    continue
                if id(tensor) not in replacements:
                    empty = torch.empty_like(tensor, device=device)
                    is_parameter = isinstance(tensor, nn.Parameter)
                    replacements[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if is_parameter else empty
                tensors[name] = replacements[id(tensor)]


def largest_examples(run: Run, rounds: Rounds) -> list[Example]:
    """Return the examples of the micro-batch with the most tokens; for a stream, of one of full packs; for rollouts,
    of one of completions of full length."""
    size = run.core.micro_batch_size
    if isinstance(rounds, Rollouts):
        return list(rounds.widest(size))
    if isinstance(rounds, StoredRounds):
        packs = rounds.packs_of(0)
        totals = packs.totals(rounds.store.compact_widths())
        at = int(np.add.reduceat(totals, np.arange(0, len(totals), size)).argmax()) * size
        return [rounds.store[i] for members in packs[at : at + size] for i in members]
    tokens = np.zeros(run.core.sequence_len, np.int32)
    return [Example([segment([]), segment(tokens, np.ones(len(tokens), np.float32))])] * size


def collated(run: Run, examples: Sequence[Example]) -> Batch:
    """Return the micro-batch of examples, on the device."""
    batch = collate(examples, share=run.shares_prompts)
    if run.core.precompute_ref_log_probs:  # they are not computed yet, and zeros take as much memory
        batch.reference = torch.zeros(batch.tokens)
    return batch.to(run.device)
