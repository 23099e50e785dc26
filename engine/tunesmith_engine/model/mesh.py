"""The mesh of a run: how many processes each axis has, and how torch sees them."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from tunesmith.run import Run

KEYS = {
    "replicate": "dp_replicate_size", "shard": "dp_shard_size", "context": "context_parallel_size",
    "tensor": "tensor_parallel_size",
}  # fmt: skip
TENSOR = "fsdp"
"""The name of the tensor axis in the mesh of the weights. peft (0.21) reads the size of a complete layer from a shard
only if its mesh has this name."""


@dataclass(frozen=True)
class Sizes:
    """The number of processes on each axis. Their product is the number of processes of the run.

    The axes are in the order of their traffic: neighbors on the last one should have the fastest connection.
    """

    replicate: int = 1
    shard: int = 1
    context: int = 1
    tensor: int = 1
    expert: int = 1
    """Processes over which the experts of a layer are divided: not an axis, but groups of neighbors on the others."""

    @property
    def axes(self) -> dict[str, int]:
        """The number of processes by axis."""
        return {name: size for name, size in asdict(self).items() if name != "expert"}

    @property
    def processes(self) -> int:
        """The product of all axes."""
        return math.prod(self.axes.values())

    def mesh(self, device: str) -> DeviceMesh | None:
        """Return the mesh of the axes with several processes, or None if only `replicate` has. Call it on all."""
        axes = {name: size for name, size in self.axes.items() if size > 1}
        if not axes.keys() - {"replicate"}:
            return None
        return init_device_mesh(device, tuple(axes.values()), mesh_dim_names=tuple(axes))

    def describe(self, kind: str) -> str:
        """Return the name of a parallelism with the axes that divide the work on a pack."""
        pack = f", each pack over {self.context} processes" if self.context > 1 else ""
        layer = f", each layer over {self.tensor} processes" if self.tensor > 1 else ""
        return kind + pack + layer + (f", experts over {self.expert} processes" if self.expert > 1 else "")

    def weights(self, device: str) -> tuple[DeviceMesh, DeviceMesh]:
        """Return the mesh over which weights are replicated and sharded, and the one over which layers are divided.

        Processes that compute parts of one pack have different gradients, just as those with different packs. So they
        shard the weights too, which takes less memory than one copy for each. FSDP2 requires that both meshes are
        parts of one. Call it on all processes.
        """
        axes = {"copies": self.replicate, "weights": self.shard * self.context, TENSOR: self.tensor}
        names = [name for name, size in axes.items() if size > 1 or name != "copies"]
        mesh = init_device_mesh(device, tuple(axes[name] for name in names), mesh_dim_names=tuple(names))
        return mesh[tuple(names[:-1])], mesh[TENSOR]

    def experts(self, device: str) -> tuple[DeviceMesh, DeviceMesh]:
        """Return the mesh over which weights of experts are sharded, and the one over which experts are divided.

        The second one has the processes between which tokens travel. Each of the first one has the same experts.
        """
        shape = self.processes // self.expert, self.expert
        mesh = init_device_mesh(device, shape, mesh_dim_names=("weights", "experts"))
        return mesh["weights"], mesh["experts"]


def sizes(run: Run, processes: int) -> Sizes:
    """Return the axes of a run. Raises ConfigError if their product is not the number of processes."""
    core = run.core
    if processes == 1:
        for key in ("context_parallel_size", "tensor_parallel_size", "expert_parallel_size"):
            if getattr(core, key) > 1:
                run.note(key, "has no effect on one process")
        return Sizes()
    context, tensor = core.context_parallel_size, core.tensor_parallel_size
    for key, size in (("context_parallel_size", context), ("tensor_parallel_size", context * tensor)):
        if processes % size:
            message = f"{processes} processes are not a multiple of {size}"
            help = "start as many processes as the product of all axes, or choose a divisor of their number"
            raise run.config.error(key, message, help)
    expert = core.expert_parallel_size
    if processes % expert or (expert > 1 and expert % tensor):
        message = f"{processes} processes can't be divided into groups of {expert}"
        message += f" that are a multiple of tensor_parallel_size: {tensor}" if tensor > 1 else ""
        raise run.config.error("expert_parallel_size", message, "choose a divisor of the number of processes")
    rest = processes // context // tensor
    if core.fsdp_config is None:
        return Sizes(replicate=rest, context=context, tensor=tensor, expert=expert)
    replicas = core.dp_replicate_size or max(1, rest // (core.dp_shard_size or rest))
    shards = core.dp_shard_size or max(1, rest // replicas)
    axes = Sizes(replicas, shards, context, tensor, expert)
    if axes.processes != processes:
        key = "dp_replicate_size" if core.dp_replicate_size else "dp_shard_size"
        parts = f" of {context} parts of a pack" if context > 1 else ""
        parts += f" of {tensor} parts of a layer" if tensor > 1 else ""
        message = f"{replicas} replicas of {shards} shards{parts} need {axes.processes} processes"
        used = [name for name, size in axes.axes.items() if size > 1 or name in ("replicate", "shard")]
        names = " times ".join(KEYS[name] for name in used)
        help = f"{names} is the number of processes"
        raise run.config.error(key, f"{message}, but there are {processes}", help)
    return axes
