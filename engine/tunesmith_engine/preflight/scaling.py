"""Predict what each process of a run keeps in memory and sends in a step, from the model without weights.

docs/scaling.md has the formulas. bench/traffic.py compares them with the bytes that processes really send.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from tunesmith.config.settings import FSDPConfig
from tunesmith.plugins.models import POLICY
from tunesmith.run import Run
from tunesmith_engine.batch.stretch import repeated
from tunesmith_engine.model.build import abstract_models
from tunesmith_engine.model.data_parallelism import units
from tunesmith_engine.model.language_model import AttentionShape, LanguageModel
from tunesmith_engine.model.mesh import Sizes

FLOAT = 4
"""Bytes of a gradient, which is reduced in float32 whatever the forward computes in."""


@dataclass(frozen=True)
class Weights:
    """The weights of a model in bytes, as a forward reads them.

    root: those outside of the layers, which a process keeps from a forward to its backward. largest: those of the
    largest layer. trained: the bytes of all gradients.
    """

    total: int
    root: int
    largest: int
    trained: int

    @classmethod
    def of(cls, run: Run, module: nn.Module, config: FSDPConfig | None) -> Weights:
        """Count the weights of a module, whose layers are gathered one by one as `config` says."""
        layers = [_bytes(run, unit) for unit in units(module, config)]
        total = _bytes(run, module)
        trained = sum(p.numel() for p in module.parameters() if p.requires_grad) * FLOAT
        return cls(total, total - sum(layers), max(layers, default=0), trained)


def _bytes(run: Run, module: nn.Module) -> int:
    """Return the bytes of a module's weights in the data type of the forward."""
    half = run.world.half
    return sum(p.numel() * (2 if half and p.is_floating_point() else p.element_size()) for p in module.parameters())


def count_weights(run: Run, config: FSDPConfig | None) -> tuple[dict[str, Weights], LanguageModel]:
    """Return the weights of each model by name, and the policy, all without content. config: from `fsdp_config`."""
    with abstract_models(run) as models:
        return {name: Weights.of(run, model.module, config) for name, model in models.items()}, models[POLICY]


def scaling(run: Run, axes: Sizes, memory: dict[str, Any]) -> dict[str, Any]:
    """Return what a run has on several processes: mesh, packs of a step, memory and traffic of each process.

    memory: the bytes of one process at the peak of a step by component, and the tokens of the largest micro-batch, from
    `peak_memory`; or "not counted". Traffic is what a process sends in one optimizer step, in bytes by
    purpose, without generation.
    """
    core, config = run.core, fsdp_config(run, axes)
    weights, policy = count_weights(run, config)
    report: dict[str, Any] = {
        "processes": axes.processes,
        "mesh": " x ".join(f"{name} {size}" for name, size in asdict(axes).items() if size > 1),
        "packs_per_step": core.micro_batch_size * core.gradient_accumulation_steps * axes.replicate * axes.shard,
    }
    if axes.expert == 1 and "total" in memory:
        report["memory"] = divide_memory(memory, axes, config, weights, core.gradient_accumulation_steps)
    if axes.expert == 1:  # tokens that travel to experts depend on the router
        sent = traffic(run, axes, weights, policy, memory.get("tokens", core.micro_batch_size * core.sequence_len))
        report["sent_per_step"] = {name: int(size) for name, size in sent.items() if size}
    return report


def divide_memory(
    memory: dict[str, Any], axes: Sizes, config: FSDPConfig | None, weights: dict[str, Weights], steps: int
) -> dict[str, int]:
    """Return the bytes of each process by component. Those of sharded weights are a shard and what is gathered.

    Args:
        memory: the bytes of one process alone, from `peak_memory`.
        axes: the processes on each axis. Experts must not be divided.
        config, weights: from `fsdp_config` and `count_weights`.
        steps: gradient_accumulation_steps.
    """
    policy = weights[POLICY]
    shards = axes.shard * axes.context if config is not None else 1
    out: dict[str, int] = {}
    for name, size in memory.items():
        if name == "activations":
            out[name] = size // axes.context
        elif name == "loss":  # of logits, each process has those of its part of the vocabulary
            out[name] = size // (axes.context * axes.tensor)
        elif name in ("optimizer", "gradients", "weights", *weights):
            out[name] = size // (shards * axes.tensor)
    if config is not None and shards > 1:
        # Two layers at a time, because the next one is gathered while one computes.
        parts = {name: w.total if not config.reshard_after_forward else w.root + 2 * w.largest
                 for name, w in weights.items()}  # fmt: skip
        out["gathered"] = max(parts.values()) // axes.tensor
        if steps > 1:  # complete until the last micro-batch, which exchanges them
            out["gradients"] = policy.trained // axes.tensor
    elif config is None:
        out["buffers"] = policy.trained  # in which DDP exchanges gradients
    return out | {"total": sum(out.values())}


def traffic(
    run: Run, axes: Sizes, weights: dict[str, Weights], policy: LanguageModel, tokens: int, native: bool = True
) -> dict[str, float]:
    """Return the bytes that a process sends in one optimizer step, by purpose.

    A collective over n processes sends (n - 1) / n of its data, and twice that for a sum on all of them. With `native`,
    a sum that is scattered takes half of that; gloo computes it on all, and drops the rest.
    """
    core, trained = run.core, weights[POLICY].trained / axes.tensor
    steps, config = core.gradient_accumulation_steps, fsdp_config(run, axes)
    width = 2 if run.world.half else 4
    if config is None:
        sent = {"gradients": 2 * _part(axes.processes) * trained}
    else:
        shards = axes.shard * axes.context
        scattered = (1 if native else 2) * _part(shards) * trained
        sent = {
            "gradients": scattered,
            "gradients of replicas": 2 * _part(axes.replicate) * trained / shards,
            "weights": steps * _part(shards) * _gathered(run, weights, config) / axes.tensor,
        }
    if axes.context > 1 and policy.attention_shape is not None:
        passes = 2 + core.gradient_checkpointing + _reference_forwards(run)
        exchanged = _exchanged(policy.attention_shape, axes.context) / axes.tensor
        sent["attention"] = steps * passes * width * exchanged * tokens
    if axes.tensor > 1 and policy.attention_shape is not None and policy.layer_sums and policy.hidden_size:
        forward, backward = policy.layer_sums
        forwards = 1 + core.gradient_checkpointing + _reference_forwards(run)
        # Twice outside of the layers: embeddings, and gradients of the states that the head reads, at most all of them.
        sums = policy.attention_shape.layers * (forward * forwards + backward) + 2 + _reference_forwards(run)
        states = width * policy.hidden_size * tokens / axes.context
        sent["layers"] = steps * 2 * _part(axes.tensor) * states * sums
    return sent


def fsdp_config(run: Run, axes: Sizes) -> FSDPConfig | None:
    """Return the configuration with which FSDP2 shards or replicates the weights; None for DDP."""
    divided = axes.tensor > 1 or axes.expert > 1
    return run.core.fsdp_config or (FSDPConfig() if divided else None)


def _part(processes: int) -> float:
    """Return the share of the data that belongs to the other processes."""
    return (processes - 1) / processes


def _gathered(run: Run, weights: dict[str, Weights], config: FSDPConfig) -> float:
    """Return the bytes of weights that are gathered for one micro-batch. Layers are gathered again in the backward."""
    policy = weights[POLICY]
    switched_off = _reference_forwards(run) if run.core.adapter is not None else 0  # the reference is the policy
    again = policy.total - policy.root if config.reshard_after_forward else 0
    others = sum(w.total for name, w in weights.items() if name != POLICY)
    return policy.total * (1 + switched_off) + again + others


def _reference_forwards(run: Run) -> int:
    """Return the forwards of a reference for one micro-batch: of a model of its own, or of the policy with its adapter
    switched off."""
    return int(run.needs.reference and not run.core.precompute_ref_log_probs)


def _exchanged(shape: AttentionShape, processes: int) -> float:
    """Return the numbers that a process sends in one forward, per token of the pack: queries, keys, values, outputs."""
    groups = shape.groups * repeated(shape.heads, shape.groups, processes)
    return shape.layers * shape.width * (2 * shape.heads + 2 * groups) * _part(processes) / processes
