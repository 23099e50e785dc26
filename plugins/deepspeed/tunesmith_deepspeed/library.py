"""The calls of DeepSpeed. Nothing else in the plugin imports it."""

from __future__ import annotations

import logging
import os
import warnings
from collections import defaultdict
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from tunesmith import Run
from tunesmith.optional import library

HOOKS = ("pre_bwd_fn", "post_bwd_fn", "applied_pre_backward_ref_cnt", "ds_grads_remaining")
"""Attributes that stay on a submodule after the hooks of ZeRO-3 are removed. Through them, backward would call the
first engine."""


def start(run: Run, device: torch.device) -> None:
    """Import DeepSpeed for a device, in the process group of the run. A single process gets a group of its own."""
    if "LOCAL_RANK" not in os.environ:  # DeepSpeed reads it at any time, and a single process has no launcher
        os.environ["LOCAL_RANK"] = "0"
        run.closing.append(lambda: os.environ.pop("LOCAL_RANK", None))
    if device.type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    deepspeed = library("deepspeed")
    # torch 2.13 has new names for calls of DeepSpeed, which earlier releases don't know.
    warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    if not dist.is_initialized():
        store = dist.HashStore()
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", store=store, rank=0, world_size=1)
    if device.type == "cpu":
        # Without this, DeepSpeed tries a compiler for each of its kernels, and then compiles the one for shared memory,
        # which takes a minute. gloo does its work, and an optimizer of torch that of the kernels for updates.
        deepspeed.ops.__compatible_ops__ = defaultdict(bool)
    deepspeed.init_distributed(dist_init_required=False, verbose=False)


def engine(config: dict[str, Any], module: nn.Module, optimizer: Optimizer | None = None) -> Any:
    """Return DeepSpeed's engine of a module. Without an optimizer, it only distributes the weights (ZeRO-3)."""
    import deepspeed

    return deepspeed.initialize(model=module, optimizer=optimizer, config=config, dist_init_required=False)[0]


def shard(config: dict[str, Any], module: nn.Module, device: torch.device) -> None:
    """Divide the weights of a module over the processes (ZeRO-3), one after the other: it may not fit on one device."""
    import deepspeed

    deepspeed.zero.Init(module=module, config_dict_or_path=config, dtype=next(module.parameters()).dtype)
    for buffer in module.buffers():
        buffer.data = buffer.data.to(device)


def take_apart(engine: Any) -> None:
    """Remove the hooks of an engine without an optimizer, so that another one can be built. Weights stay divided."""
    for hook in (engine.module_forward_pre_hook, engine.module_forward_post_hook):
        hook.remove()
    engine.optimizer.empty_partition_cache()
    engine.destroy()
    for part in engine.module.modules():
        for name in HOOKS:
            part.__dict__.pop(name, None)


def gradient_norm(zero: Any) -> Tensor:
    """Return the norm of all gradients, which the optimizer of an engine has reduced; negative if it is not finite."""
    from deepspeed.runtime.utils import combine_grad_norm_groups, get_global_norm_of_tensors

    if hasattr(zero, "get_grads_for_norm"):  # stage 1 in bfloat16, which has an optimizer of its own
        norm = get_global_norm_of_tensors(zero.get_grads_for_norm()[0], mpu=zero.mpu)
    elif hasattr(zero, "scaled_global_norm"):  # stages 1 and 2
        norm = zero.scaled_global_norm()
    else:
        norm = combine_grad_norm_groups(zero._get_norm_groups())
    return norm if isinstance(norm, Tensor) else torch.tensor(float(norm))


def drop_gradients(zero: Any) -> None:
    """Drop the gradients of a step, as DeepSpeed does if they are not finite."""
    if hasattr(zero, "clear_hp_grads"):  # stage 1 in bfloat16
        zero.clear_hp_grads()
        zero.clear_lp_grads()
        return
    zero.micro_step_id = -1 if hasattr(zero, "scaled_global_norm") else 0
    zero.zero_grad(set_to_none=True)
    if hasattr(zero, "_release_preflattened_grad_buffers"):
        zero._release_preflattened_grad_buffers()
    if zero.cpu_offload if hasattr(zero, "cpu_offload") else zero.offload_optimizer:
        zero.reset_cpu_buffers()
    elif hasattr(zero, "scaled_global_norm"):
        for group in zero.averaged_gradients:
            zero.averaged_gradients[group] = zero.all_grad_tensors[group] = None
    else:
        zero.averaged_gradients = {}


def gathered(parameter: nn.Parameter, write: bool = False) -> Any:
    """Return a context in which a parameter of ZeRO-3 is complete. With `write`, the main process changes it."""
    import deepspeed

    return deepspeed.zero.GatheredParameters([parameter], modifier_rank=0 if write else None)
