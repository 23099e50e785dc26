"""Call the optional methods of optimizers, and save the state of an optimizer by the names of parameters.

The answer of build_optimizer may have these methods, beside those of torch's Optimizer:

    eval(): put the weights to evaluate and to save into the parameters.
    train(): put the weights at which gradients are computed back into them, bit for bit.
    learning_rate(): return the learning rate of the last update, for the log.
    state_bytes(): return the bytes of its state in this process, once every parameter has been updated.

Its attribute `group_state` names the entries of param_groups that count its steps. Unlike options, a resumed run keeps
them even if an option has changed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer
from torch.utils._pytree import tree_map_only

from tunesmith_engine.model.gathering import to_main
from tunesmith_engine.runtime.world import World

ADAM = 8
"""Bytes that Adam keeps for each trained parameter: two means in float32."""


def switch(optimizer: Optimizer, mode: str) -> None:
    """Call `train` or `eval` of an optimizer that has two sets of weights."""
    getattr(optimizer, mode, lambda: None)()


def learning_rate(optimizer: Optimizer) -> float:
    """Return the learning rate of the last update: of the first group, unless the optimizer knows better."""
    own = getattr(optimizer, "learning_rate", None)
    return float(own() if own else optimizer.param_groups[0]["lr"])


def set_rate(group: dict[str, Any], rate: Any) -> None:
    """Set the learning rate of a group, which is a tensor in some optimizers."""
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(float(rate))
    else:
        group["lr"] = rate


def options(optimizer: Optimizer) -> list[dict[str, Any]]:
    """Return the options of each group, without its parameters and what counts steps."""
    apart = {"params", *getattr(optimizer, "group_state", ())}
    return [{key: value for key, value in group.items() if key not in apart} for group in optimizer.param_groups]


def state_bytes(optimizer: Optimizer | None, trained: int) -> int | None:
    """Return the bytes of an optimizer's state for a number of trained parameters; None if they are unknown."""
    if own := getattr(optimizer, "state_bytes", None):
        return int(own())
    return ADAM * trained if isinstance(getattr(optimizer, "optimizer", optimizer), torch.optim.Adam) else None


def named_state(module: nn.Module, optimizer: Optimizer, world: World | None = None) -> dict[str, Any]:
    """Return state_dict() with names instead of numbers.

    With `world`, divided tensors (DTensor) are gathered on its main process one by one: call it on all processes.
    Otherwise they stay divided.
    """
    state = optimizer.state_dict()
    names = _names(module, optimizer)
    groups = [{**group, "params": [names[i] for i in group["params"]]} for group in state["param_groups"]]

    values = state["state"]
    if world is not None:
        values = tree_map_only(DTensor, lambda tensor: to_main(world, tensor), values)
    return {"state": {names[i]: value for i, value in values.items()}, "param_groups": groups}


def load_named_state(module: nn.Module, optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Load what `named_state` returned, also from another number of processes."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    names = _names(module, optimizer)
    options = {name: group for group in state["param_groups"] for name in group["params"]}
    groups = []
    number = 0
    for group in optimizer.param_groups:
        numbers = list(range(number, number := number + len(group["params"])))
        groups.append({**options[names[numbers[0]]], "params": numbers})
    loaded = {i: _sharded(state["state"][n], parameters[i]) for i, n in enumerate(names) if n in state["state"]}
    optimizer.load_state_dict({"state": loaded, "param_groups": groups})


def _sharded(value: Any, parameter: Tensor) -> Any:
    """Return the state of a parameter, with tensors of its shape in shards if it is in shards."""
    if not isinstance(parameter, DTensor):
        return value
    # What is divided already stays as it is.
    mesh, placements = parameter.device_mesh, parameter.placements

    def shard(tensor: Tensor) -> Tensor:
        full = tensor.to(mesh.device_type)
        return distribute_tensor(full, mesh, placements, src_data_rank=None).to(parameter.device)

    return tree_map_only(
        Tensor, lambda t: shard(t) if t.shape == parameter.shape and not isinstance(t, DTensor) else t, value
    )


def _names(module: nn.Module, optimizer: Optimizer) -> list[str]:
    """Return the names of the optimizer's parameters in the order of their numbers."""
    names = {id(p): name for name, p in reversed(list(module.named_parameters(remove_duplicate=False)))}
    return [names[id(p)] for group in optimizer.param_groups for p in group["params"]]
