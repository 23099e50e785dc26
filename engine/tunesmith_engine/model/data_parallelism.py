"""The parallelism of a run if no plugin answers build_parallelism.

It is one process, DDP, FSDP2 or HSDP. With several processes, they may compute each pack together (context), and with
FSDP2 also each layer (tensor), or have different experts.

Accelerate joins the processes of a launcher and chooses the device of each; torch does the rest.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import convert_outputs_to_fp32
from torch import Tensor, nn
from torch.distributed.checkpoint import state_dict as dcp
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from tunesmith.config.settings import FSDPConfig
from tunesmith.errors import ConfigError, EnvironmentProblem
from tunesmith.run import Run
from tunesmith_engine.batch.batch import Batch
from tunesmith_engine.batch.stretch import cut, joined
from tunesmith_engine.model.mesh import Sizes, sizes
from tunesmith_engine.model.optimizers import load_named_state, named_state
from tunesmith_engine.model.parallelism import Parallelism
from tunesmith_engine.runtime.world import World

PATIENCE = timedelta(hours=6)
"""How long processes wait for one that prepares data or writes a checkpoint. If a process dies, the launcher ends the
others at once."""


def build_parallelism(run: Run) -> Parallelism:
    """Return the default answer: sharded with `fsdp_config` on several processes, otherwise replicated.

    FSDP2 can reduce the gradients of divided layers and experts, and DDP can't. So it replicates them, too.
    """
    world = start_world(run)
    axes = sizes(run, world.size)
    if world.size == 1 or (run.core.fsdp_config is None and axes.tensor == axes.expert == 1):
        return Replicated(world, axes)
    return Sharded(world, run.core.fsdp_config or FSDPConfig(), axes)


def start_world(run: Run) -> World:
    """Join the process group of the launcher, if there is one. Raises EnvironmentProblem for a missing device."""
    core, config = run.core, run.config
    if core.device == "cuda" and not torch.cuda.is_available():
        help = "write device: auto or device: cpu"
        raise EnvironmentProblem("device: cuda, but torch finds no GPU", where=config.place("device"), help=help)
    cpu = core.device == "cpu" or not torch.cuda.is_available()
    if core.tf32 is not None:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = core.tf32
    half = core.bf16 is True or (core.bf16 == "auto" and not cpu and torch.cuda.is_bf16_supported())
    if core.bf16 is True and not cpu and not torch.cuda.is_bf16_supported():
        message = "bf16: true, but this GPU does not support bfloat16"
        raise EnvironmentProblem(message, where=config.place("bf16"), help="write bf16: auto")
    # Precision is not Accelerate's business here: its state is shared by all runs of a process, and a second run may
    # want another one.
    state = PartialState(cpu=cpu, timeout=PATIENCE)
    if cpu and state.num_processes == 1 and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise EnvironmentProblem("the launcher started several processes, but they are not in one process group")
    kind = "DDP" if state.num_processes > 1 else "one process"
    return World(state.process_index, state.num_processes, torch.device(state.device), half, kind=kind)


def units(module: nn.Module, config: FSDPConfig | None) -> list[nn.Module]:
    """Return the layers of a model that are gathered and freed one by one. Raises ConfigError if there are none."""
    if config is None or config.auto_wrap_policy != "TRANSFORMER_BASED_WRAP":
        return []
    names = config.transformer_layer_cls_to_wrap
    by_model: Any = module._no_split_modules
    classes = {name.strip() for name in names.split(",")} if names else set(by_model or ())
    layers = [m for m in module.modules() if type(m).__name__ in classes]
    if not layers:
        help = "set fsdp_config.transformer_layer_cls_to_wrap to the class of its layers"
        raise ConfigError(f"the model has no layer of class {', '.join(sorted(classes)) or '?'}", help=help)
    return layers


class DataParallelism(Parallelism):
    """Base of replicated and sharded models: checkpoints by torch.distributed.checkpoint."""

    saves_shards = False
    """True if model and optimizer state are this process's shards (DTensor) instead of full tensors."""

    def __init__(self, world: World):
        self.world = world

    def split(self, batch: Batch) -> Batch:
        context = self.world.axis("context")
        return cut(batch, context) if context.size > 1 else batch

    def join(self, outputs: dict[str, Any], part: Batch) -> dict[str, Any]:
        return joined(outputs, part.stretch) if part.stretch else outputs

    def backward(self, loss: Tensor) -> None:
        # DDP and FSDP average gradients; the product makes that a sum. Parts of a layer are not averaged.
        (loss * (self.world.size // self.world.axis("tensor").size)).backward()

    def model_state(self, module: Any) -> dict[str, Any]:
        """Return trained weights, each once, and buffers. torch keeps the second name of a weight that is tied."""
        full = not self.saves_shards
        offload = full and self.world.size > 1
        options = dcp.StateDictOptions(full_state_dict=full, cpu_offload=offload, ignore_frozen_params=True)
        state = dcp.get_model_state_dict(module, options=options)
        unwrapped = _unwrapped(module)
        trained = {name for name, p in unwrapped.named_parameters() if p.requires_grad}
        parameters = {name for name, _ in unwrapped.named_parameters(remove_duplicate=False)}
        return {name: value for name, value in state.items() if name in trained or name not in parameters}

    def load_model_state(self, module: Any, state: dict[str, Any]) -> None:
        full = not any(isinstance(value, DTensor) for value in state.values())
        dcp.set_model_state_dict(module, state, options=dcp.StateDictOptions(full_state_dict=full, strict=False))

    def optimizer_state(self, module: Any, optimizer: Optimizer) -> dict[str, Any]:
        return named_state(_unwrapped(module), optimizer, None if self.saves_shards else self.world)

    def load_optimizer_state(self, module: Any, optimizer: Optimizer, state: dict[str, Any]) -> None:
        load_named_state(_unwrapped(module), optimizer, state)


def _unwrapped(module: Any) -> nn.Module:
    """Return the module inside DDP; FSDP2 does not wrap it."""
    return module.module if isinstance(module, DistributedDataParallel) else module


class Replicated(DataParallelism):
    """A complete model on each process; DDP sums the gradients if there are several.

    sizes: the processes on each axis. Default: all have packs of their own.
    """

    def __init__(self, world: World, sizes: Sizes | None = None):
        mesh = sizes.mesh(world.device.type) if sizes else None
        super().__init__(replace(world, kind=sizes.describe("DDP"), mesh=mesh) if sizes and mesh else world)

    def wrap(self, module: nn.Module, training: bool = True) -> Any:
        device = self.world.device
        if self.world.half:
            forward = torch.autocast(device.type, torch.bfloat16)(module.forward)
            module.forward = convert_outputs_to_fp32(forward)
        module.to(device)
        if self.world.size == 1 or not training:
            return module
        # Buffers are not broadcast, because forwards must not communicate.
        devices = None if device.type == "cpu" else [device.index]
        with warnings.catch_warnings():  # torch 2.13 has a new name for it, which earlier releases don't know
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
            return DistributedDataParallel(module, device_ids=devices, broadcast_buffers=False)

    def accumulating(self, module: Any, last: bool) -> AbstractContextManager[Any]:
        synced = last or not isinstance(module, DistributedDataParallel)
        return contextlib.nullcontext() if synced else module.no_sync()


class Sharded(DataParallelism):
    """Parameters, gradients and optimizer state in shards (FSDP2), in one or several replicas (HSDP).

    sizes: the processes on each axis.
    """

    def __init__(self, world: World, config: FSDPConfig, sizes: Sizes):
        kind = "FSDP2" if sizes.replicate == 1 else f"HSDP ({sizes.replicate} replicas of {sizes.shard} shards)"
        if sizes.shard == 1 and sizes.replicate > 1:
            kind = f"FSDP2 ({sizes.replicate} replicas)"
        device = world.device.type
        super().__init__(replace(world, sharded=True, kind=sizes.describe(kind), mesh=sizes.mesh(device)))
        self.weights, tensor = sizes.weights(device)
        if sizes.expert > 1:
            self.expert_weights, self.expert = sizes.experts(device)
        self.tensor = tensor if sizes.tensor > 1 or sizes.expert > 1 else None
        self.config = config
        self.saves_shards = config.state_dict_type == "SHARDED_STATE_DICT"
        self.offloads = config.offload_params and world.device.type != "cpu"  # on the CPU, they are there already

    def wrap(self, module: nn.Module, training: bool = True) -> Any:
        """Apply FSDP2: each transformer layer is a unit, and the root contains the rest."""
        config = self.config
        options: dict[str, Any] = {
            # Gradients are reduced in float32: a sum over many processes in bfloat16 would lose its small terms.
            "mp_policy": MixedPrecisionPolicy(torch.bfloat16 if self.world.half else None, torch.float32),
            "offload_policy": CPUOffloadPolicy() if self.offloads else OffloadPolicy(),
            "mesh": self.weights,
        }
        if not self.offloads:
            module.to(self.world.device)
        self._shard_experts(module, options)
        for unit in units(module, config):
            fully_shard(unit, reshard_after_forward=config.reshard_after_forward, **options)
        sharded: Any = fully_shard(module, **options)
        # The first forward fixes the data type of gradients. If that is a reference's, an adapter is frozen then, and
        # its gradients would get the wrong type. An empty forward fixes the type while the adapter is trainable.
        sharded(None, None)
        self.reshard(sharded)
        return sharded

    def _shard_experts(self, module: nn.Module, options: dict[str, Any]) -> None:
        """Shard divided experts over the processes that have the same ones.

        Their gradients are sums over the tokens of all processes, so they are divided by the number of all as well.
        """
        for part in module.modules() if self.expert is not None else ():
            weights = part.parameters(recurse=False)
            if any(isinstance(p, DTensor) and p.device_mesh == self.expert for p in weights):
                experts: Any = fully_shard(part, **options | {"mesh": self.expert_weights})
                experts.set_gradient_divide_factor(float(self.world.size // self.world.axis("tensor").size))
                if self.expert_weights.size() > 1:  # gloo has no other way; with one process, FSDP2 would divide twice
                    experts.set_force_sum_reduction_for_comms(True)

    def accumulating(self, module: Any, last: bool) -> AbstractContextManager[Any]:
        module.set_requires_gradient_sync(last)
        return contextlib.nullcontext()

    def reshard(self, module: Any) -> None:
        for part in module.modules():
            if isinstance(part, FSDPModule):
                part.reshard()
