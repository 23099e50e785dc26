"""The processes of a run: devices, precision, and communication."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs
from torch import Tensor

from tunesmith.config.load import Config
from tunesmith.config.settings import FSDPConfig
from tunesmith.errors import EnvironmentProblem, PluginError

PATIENCE = timedelta(hours=6)
"""How long processes wait for one that prepares data or writes a checkpoint. If a process dies, the launcher ends the
others at once."""


@dataclass
class World:
    """This process among `size` processes. Accelerate sets up devices, data parallelism and mixed precision."""

    accelerator: Accelerator
    fsdp: FSDPConfig | None
    _agreed: set[str] = field(default_factory=set)

    @classmethod
    def start(cls, config: Config) -> World:
        """Join the process group of the launcher, if there is one. Raises EnvironmentProblem for a missing device."""
        core = config.core
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
        AcceleratorState._reset_state()  # a second run in this process may want another precision
        data_parallel = DistributedDataParallelKwargs(broadcast_buffers=False)  # forwards must not communicate
        patience = InitProcessGroupKwargs(timeout=PATIENCE)
        precision = "bf16" if half else "no"
        accelerator = Accelerator(cpu=cpu, mixed_precision=precision, kwargs_handlers=[data_parallel, patience])
        if cpu and accelerator.num_processes == 1 and int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise EnvironmentProblem("the launcher started several processes, but they are not in one process group")
        return cls(accelerator, core.fsdp_config)

    @property
    def rank(self) -> int:
        return int(self.accelerator.process_index)

    @property
    def size(self) -> int:
        return int(self.accelerator.num_processes)

    @property
    def main(self) -> bool:
        """True for the process that writes files and prints."""
        return bool(self.accelerator.is_main_process)

    @property
    def device(self) -> torch.device:
        return torch.device(self.accelerator.device)

    @property
    def half(self) -> bool:
        """True if forwards compute in bfloat16."""
        return bool(self.accelerator.mixed_precision == "bf16")

    @property
    def sharded(self) -> bool:
        """True if the model is sharded over processes."""
        return self.fsdp is not None and self.size > 1

    def describe(self) -> str:
        """Return parallelism, processes, device and precision in words, for `plan` and run.json."""
        kind = "FSDP2" if self.sharded else "DDP" if self.size > 1 else "one process"
        return f"{kind}, {self.size} x {self.device.type}, {'bfloat16' if self.half else 'float32'}"

    def sum(self, values: Tensor) -> Tensor:
        """Sum a tensor over all processes, in place, and return it."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def sums(self, values: dict[str, float]) -> dict[str, float]:
        """Sum named numbers over all processes. Raises PluginError if the names differ between processes."""
        if self.size == 1:
            return values
        if set(values) != self._agreed:
            everywhere = [set(names) for names in self.gather(sorted(values))]
            if different := set.union(*everywhere) - set.intersection(*everywhere):
                raise PluginError(f"counted on some processes only: {', '.join(sorted(different))}")
            self._agreed = set(values)
        total = self.sum(torch.tensor([values[k] for k in sorted(values)], dtype=torch.float64, device=self.device))
        return dict(zip(sorted(values), total.tolist(), strict=True))

    def gather(self, value: Any) -> list[Any]:
        """Return one object per process, by rank, on all of them."""
        if self.size == 1:
            return [value]
        gathered: list[Any] = [None] * self.size
        dist.all_gather_object(gathered, value)
        return gathered

    def maximum(self, value: int) -> int:
        """Return the largest of one integer per process, on all of them."""
        if self.size == 1:
            return value
        largest = torch.tensor(value, dtype=torch.int64, device=self.device)
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        return int(largest)

    def barrier(self) -> None:
        self.accelerator.wait_for_everyone()

    def leave(self) -> None:
        """Leave the process group together: a process that leaves early would abort the communication of the others."""
        if self.size > 1:
            self.barrier()
            dist.destroy_process_group()

    @contextlib.contextmanager
    def main_first(self) -> Iterator[None]:
        """Run the block on the main process first, then on the others."""
        if not self.main:
            self.barrier()
        yield
        if self.main:
            self.barrier()
