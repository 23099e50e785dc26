"""The processes of a run: devices, wrapping for data parallelism or sharding, sums over all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs
from torch import Tensor, nn

from tunesmith.config.load import Config
from tunesmith.config.settings import FSDPConfig
from tunesmith.errors import ConfigError, EnvironmentProblem, PluginError

PATIENCE = timedelta(hours=6)
"""How long processes wait for one that prepares data or writes a checkpoint. A process that dies ends the others at
once: the launcher sees to that."""


@dataclass
class World:
    """This process among `size`: Accelerate underneath for devices, data parallelism and mixed precision."""

    accelerator: Accelerator
    fsdp: FSDPConfig | None
    _agreed: set[str] = field(default_factory=set)

    @classmethod
    def start(cls, config: Config) -> World:
        """Join the process group that the launcher set up, if any. Raises EnvironmentProblem for a missing device."""
        core = config.core
        if core.device == "cuda" and not torch.cuda.is_available():
            where, help = config.document.where(("device",), value=True), "write device: auto or device: cpu"
            raise EnvironmentProblem("device: cuda, and torch sees no GPU", where=where, help=help)
        cpu = core.device == "cpu" or not torch.cuda.is_available()
        if core.tf32 is not None:
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = core.tf32
        half = core.bf16 is True or (core.bf16 == "auto" and not cpu and torch.cuda.is_bf16_supported())
        if core.bf16 is True and not cpu and not torch.cuda.is_bf16_supported():
            where = config.document.where(("bf16",), value=True)
            raise EnvironmentProblem("bf16: true, and this GPU can't", where=where, help="write bf16: auto")
        AcceleratorState._reset_state()  # a second run in this process may want another precision
        data_parallel = DistributedDataParallelKwargs(broadcast_buffers=False)  # a forward is no meeting of processes
        patience = InitProcessGroupKwargs(timeout=PATIENCE)
        precision = "bf16" if half else "no"
        accelerator = Accelerator(cpu=cpu, mixed_precision=precision, kwargs_handlers=[data_parallel, patience])
        if cpu and accelerator.num_processes == 1 and int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise EnvironmentProblem("the launcher started several processes that do not see each other")
        return cls(accelerator, core.fsdp_config)

    @property
    def rank(self) -> int:
        return int(self.accelerator.process_index)

    @property
    def size(self) -> int:
        return int(self.accelerator.num_processes)

    @property
    def main(self) -> bool:
        """Whether this is the process that writes files and prints."""
        return bool(self.accelerator.is_main_process)

    @property
    def device(self) -> torch.device:
        return torch.device(self.accelerator.device)

    @property
    def half(self) -> bool:
        """Whether forwards compute in bfloat16."""
        return bool(self.accelerator.mixed_precision == "bf16")

    @property
    def sharded(self) -> bool:
        return self.fsdp is not None and self.size > 1

    def describe(self) -> str:
        """Return parallelism, processes, device and precision in words, for `plan` and run.json."""
        kind = "FSDP2" if self.sharded else "DDP" if self.size > 1 else "one process"
        return f"{kind}, {self.size} x {self.device.type}, {'bfloat16' if self.half else 'float32'}"

    def wrap(self, root: nn.Module, training: bool = True) -> Any:
        """Move a root module to the device and wrap it: sharded, data parallel, or alone."""
        if not self.sharded:
            return self.accelerator.prepare_model(root, evaluation_mode=not training)
        return self._shard(root)

    def _shard(self, root: Any) -> nn.Module:
        """FSDP2: each layer a unit of its own, and the root the rest."""
        from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, OffloadPolicy, fully_shard

        assert self.fsdp is not None
        options: dict[str, Any] = {
            "mp_policy": MixedPrecisionPolicy(torch.bfloat16 if self.half else None, torch.float32),
            "offload_policy": CPUOffloadPolicy() if self.fsdp.offload_params else OffloadPolicy(),
            "mesh": dist.device_mesh.init_device_mesh(self.device.type, (self.size,)),
        }
        names = self.fsdp.transformer_layer_cls_to_wrap
        layers = {name.strip() for name in names.split(",")} if names else set(root._no_split_modules or ())
        if not self.fsdp.offload_params:
            root.to(self.device)
        units = [m for m in root.modules() if type(m).__name__ in layers]
        if self.fsdp.auto_wrap_policy == "TRANSFORMER_BASED_WRAP":
            if not units:
                help = "fsdp_config.transformer_layer_cls_to_wrap names the class of its layers"
                raise ConfigError(f"no layer of this model is a {', '.join(sorted(layers)) or '?'}", help=help)
            for module in units:
                fully_shard(module, reshard_after_forward=self.fsdp.reshard_after_forward, **options)
        sharded: Any = fully_shard(root, **options)
        # Data types of gradients are fixed at the first forward. If that is a reference's, an adapter is frozen then.
        sharded._get_fsdp_state()._lazy_init()
        wrapped: nn.Module = sharded
        return wrapped

    def accumulating(self, wrapped: Any, last: bool) -> AbstractContextManager[Any]:
        """Around the backward of a micro-batch: gradients are exchanged with the last one of a step only."""
        if self.sharded:
            wrapped.set_requires_gradient_sync(last)
            return contextlib.nullcontext()
        return contextlib.nullcontext() if last else self.accelerator.no_sync(wrapped)

    def sum(self, values: Tensor) -> Tensor:
        """Sum a tensor over all processes."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def sums(self, values: dict[str, float]) -> dict[str, float]:
        """Sum named numbers over all processes, which have to have the same names."""
        if self.size == 1:
            return values
        if set(values) != self._agreed:
            everywhere = [set(names) for names in self.gather(sorted(values))]
            if different := set.union(*everywhere) - set.intersection(*everywhere):
                raise PluginError(f"counted on some processes alone: {', '.join(sorted(different))}")
            self._agreed = set(values)
        total = self.sum(torch.tensor([values[k] for k in sorted(values)], dtype=torch.float64, device=self.device))
        return dict(zip(sorted(values), total.tolist(), strict=True))

    def gather(self, value: Any) -> list[Any]:
        """One object of each process, on all."""
        if self.size == 1:
            return [value]
        gathered: list[Any] = [None] * self.size
        dist.all_gather_object(gathered, value)
        return gathered

    def maximum(self, value: int) -> int:
        return max(self.gather(value)) if self.size > 1 else value

    def barrier(self) -> None:
        self.accelerator.wait_for_everyone()

    def leave(self) -> None:
        """Part from the other processes, all at once: one that left early would abort those still talking."""
        if self.size > 1:
            self.barrier()
            dist.destroy_process_group()

    @contextlib.contextmanager
    def main_first(self) -> Iterator[None]:
        """The main process does the block before the others."""
        if not self.main:
            self.barrier()
        yield
        if self.main:
            self.barrier()


def clip_gradients(parameters: Sequence[nn.Parameter], max_norm: float) -> Tensor:
    """Scale gradients to a norm of at most `max_norm` (0: leave them); gives the norm before, over all shards."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    whole: Tensor = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
    if max_norm > 0:
        torch.nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
    return whole
