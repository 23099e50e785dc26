"""Gather divided tensors on the main process, one at a time."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate, Shard

from tunesmith_engine.runtime.world import World


def to_main(world: World, tensor: DTensor) -> Tensor | None:
    """Return a full tensor in the host memory of the main process, and None on the others. Call it on all processes.

    Rows that are divided over one axis, as FSDP2 and HSDP divide them, are sent to the main process alone, which needs
    no more than their place in the result. Others are gathered on every process.
    """
    axes = [axis for axis, placement in enumerate(tensor.placements) if type(placement) is not Replicate]
    if len(axes) != 1 or type(tensor.placements[axes[0]]) is not Shard or tensor.placements[axes[0]].dim != 0:  # type: ignore[attr-defined]
        on_device: DTensor = tensor.to(world.device)  # type: ignore[assignment]  # an offloaded one can't communicate
        full = on_device.full_tensor()
        return full.cpu() if world.main else None
    group = tensor.device_mesh.get_group(axes[0])
    ranks = dist.get_process_group_ranks(group)
    if 0 not in ranks:  # another replica
        return None
    own = tensor.to_local().detach()
    if not world.main:
        if own.numel():
            dist.send(own.contiguous().to(world.device), dst=0, group=group)
        return None
    result = torch.empty(tensor.shape, dtype=tensor.dtype)
    rows = -(-tensor.shape[0] // len(ranks))  # each process has as many, except for the last ones
    for number, rank in enumerate(ranks):
        part = result[number * rows : (number + 1) * rows]
        if rank == 0:
            part.copy_(own)
        elif part.numel():
            received = part if world.device.type == "cpu" else torch.empty_like(part, device=world.device)
            dist.recv(received, src=rank, group=group)
            part.copy_(received) if received is not part else None
    return result
