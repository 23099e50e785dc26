"""The processes of a run: devices, named axes, and communication."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from tunesmith.errors import PluginError

DATA = ("replicate", "shard")
"""The axes over which the data is divided. Processes that differ in other axes compute the same examples."""


@dataclass(frozen=True)
class Axis:
    """The place of this process on an axis: its rank among the `size` processes that differ only in this axis.

    group: their process group; None for all processes of the run.
    """

    rank: int
    size: int
    group: Any = None


@dataclass
class World:
    """This process among `size` processes.

    Args:
        rank, size: place of this process, and number of processes.
        device: where this process computes.
        half: True if forwards compute in bfloat16.
        sharded: True if a forward on one process needs all others.
        kind: name of the parallelism, for `plan` and run.json.
        mesh: the processes by axis. Names: replicate, shard, context, tensor. Default: all replicate.
    """

    rank: int
    size: int
    device: torch.device
    half: bool = False
    sharded: bool = False
    kind: str = "one process"
    mesh: DeviceMesh | None = None
    _axes: dict[str, Axis] = field(init=False)
    _agreed: set[str] = field(init=False, default_factory=set)

    def __post_init__(self) -> None:
        self._axes = {"world": Axis(self.rank, self.size)} | _axes(self.mesh)
        self._axes.setdefault("data", self._axes["world"])

    @property
    def main(self) -> bool:
        """True for the process that writes files and prints."""
        return self.rank == 0

    @property
    def data(self) -> Axis:
        """The axis over which examples are divided. Its size is the number of processes with different examples."""
        return self._axes["data"]

    def axis(self, name: str) -> Axis:
        """Return an axis by name: one of the mesh, "data" (replicate and shard together) or "world" (all processes).

        An axis that the mesh does not have is of size 1.
        """
        return self._axes.get(name, Axis(0, 1))

    def describe(self) -> str:
        """Return parallelism, processes, device and precision in words, for `plan` and run.json."""
        return f"{self.kind}, {self.size} x {self.device.type}, {'bfloat16' if self.half else 'float32'}"

    def sum(self, values: Tensor, axis: str = "data") -> Tensor:
        """Sum a tensor over the processes of an axis, in place, and return it."""
        along = self.axis(axis)
        if along.size > 1:
            dist.all_reduce(values, group=along.group)
        return values

    def sums(self, values: dict[str, float], axis: str = "data") -> dict[str, float]:
        """Sum named numbers over the processes of an axis. Raises PluginError if the names differ between processes."""
        if self.size == 1:
            return values
        if set(values) != self._agreed:
            everywhere = [set(names) for names in self.gather(sorted(values))]
            if different := set.union(*everywhere) - set.intersection(*everywhere):
                raise PluginError(f"counted on some processes only: {', '.join(sorted(different))}")
            self._agreed = set(values)
        numbers = torch.tensor([values[k] for k in sorted(values)], dtype=torch.float64, device=self.device)
        return dict(zip(sorted(values), self.sum(numbers, axis).tolist(), strict=True))

    def gather(self, value: Any, axis: str = "world") -> list[Any]:
        """Return one object per process of an axis, by rank, on all of them."""
        along = self.axis(axis)
        if along.size == 1:
            return [value]
        gathered: list[Any] = [None] * along.size
        dist.all_gather_object(gathered, value, group=along.group)
        return gathered

    def gather_data(self, value: Any) -> list[Any]:
        """Return one object per process of the data axis, by rank, on all processes.

        Processes that differ in other axes compute the same examples. They all get the object of the first of them.
        """
        others = self._axes.keys() - {*DATA, "data", "world"}
        first = all(self._axes[name].rank == 0 for name in others)
        shares = self.gather((self.data.rank, value) if first else None)
        return [share for _, share in sorted(filter(None, shares), key=lambda share: share[0])]

    def maximum(self, value: int) -> int:
        """Return the largest of one integer per process, on all of them."""
        if self.size == 1:
            return value
        largest = torch.tensor(value, dtype=torch.int64, device=self.device)
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        return int(largest)

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            dist.barrier(device_ids=None if self.device.index is None else [self.device.index])

    def leave(self) -> None:
        """Leave the process group together: a process that leaves early would abort the communication of the others."""
        if self.size > 1:
            self.barrier()
            dist.destroy_process_group()


def _axes(mesh: DeviceMesh | None) -> dict[str, Axis]:
    """Return the axes of a mesh, and "data". Call it on all processes, because it may create a process group."""
    if mesh is None:
        return {}
    names = mesh.mesh_dim_names or ()
    axes = {name: Axis(mesh.get_local_rank(name), mesh[name].size(), mesh.get_group(name)) for name in names}
    data = [names.index(name) for name in DATA if name in names]
    others = [index for index in range(len(names)) if index not in data]
    if not others:
        return axes
    # One row of ranks for each place on the other axes: the processes among which examples are divided.
    width = 1
    for index in data:
        width *= mesh.size(index)
    rows = mesh.mesh.permute(*others, *data).reshape(-1, width).tolist()
    group, _ = dist.new_subgroups_by_enumeration(rows)
    row = next(row for row in rows if dist.get_rank() in row)
    return axes | {"data": Axis(row.index(dist.get_rank()), width, group)}
