"""Distribute a model over the processes of a run: wrapping, gradient exchange, clipping."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tunesmith.config.settings import FSDPConfig
from tunesmith.errors import ConfigError
from tunesmith_engine.runtime.world import World


def wrap(world: World, module: nn.Module, training: bool = True) -> Any:
    """Move a module to the device and wrap it for data parallelism or sharding; return it as is on one process."""
    if world.sharded:
        return _shard(world, module)
    return world.accelerator.prepare_model(module, evaluation_mode=not training)


def _shard(world: World, module: Any) -> nn.Module:
    """Apply FSDP2: each transformer layer is a unit, and the root contains the rest."""
    from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, OffloadPolicy, fully_shard

    config: FSDPConfig | None = world.fsdp
    assert config is not None
    options: dict[str, Any] = {
        # Gradients are reduced in float32: a sum over many processes in bfloat16 would lose its small terms.
        "mp_policy": MixedPrecisionPolicy(torch.bfloat16 if world.half else None, torch.float32),
        "offload_policy": CPUOffloadPolicy() if config.offload_params else OffloadPolicy(),
        "mesh": dist.device_mesh.init_device_mesh(world.device.type, (world.size,)),
    }
    names = config.transformer_layer_cls_to_wrap
    layers = {name.strip() for name in names.split(",")} if names else set(module._no_split_modules or ())
    if not config.offload_params:
        module.to(world.device)
    units = [m for m in module.modules() if type(m).__name__ in layers]
    if config.auto_wrap_policy == "TRANSFORMER_BASED_WRAP":
        if not units:
            help = "set fsdp_config.transformer_layer_cls_to_wrap to the class of its layers"
            raise ConfigError(f"the model has no layer of class {', '.join(sorted(layers)) or '?'}", help=help)
        for unit in units:
            fully_shard(unit, reshard_after_forward=config.reshard_after_forward, **options)
    sharded: Any = fully_shard(module, **options)
    # The data type of gradients is fixed by the first forward. If that is a reference's, an adapter is frozen then,
    # and its gradients would get the wrong type. Initializing here fixes the type while the adapter is trainable.
    sharded._get_fsdp_state()._lazy_init()
    return sharded


def accumulating(world: World, wrapped: Any, last: bool) -> AbstractContextManager[Any]:
    """Return a context for the backward of a micro-batch: only the last one of a step exchanges gradients."""
    if world.sharded:
        wrapped.set_requires_gradient_sync(last)
        return contextlib.nullcontext()
    return contextlib.nullcontext() if last else world.accelerator.no_sync(wrapped)


def backward(world: World, loss: Tensor) -> None:
    """Run the backward of a loss that is already divided by the counts of the whole step, over all processes."""
    world.accelerator.backward(loss * world.size)  # DDP and FSDP average gradients; the product makes that a sum


def clip_gradients(parameters: Sequence[nn.Parameter], max_norm: float) -> Tensor:
    """Scale gradients to a norm of at most `max_norm`, and return the norm before, over all shards. 0 disables it."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    total: Tensor = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
    if max_norm > 0:
        torch.nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
    return total
