"""Weights and optimizer state of ZeRO by the names of parameters, each complete and independent of the processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from tunesmith import full_shape
from tunesmith_deepspeed.library import gathered


@dataclass(frozen=True)
class Part:
    """The float32 numbers of a parameter that this process updates: flat[start : start + numel].

    They are the parameter's numbers from `first` on. `numel` is 0 if this process updates none of them.
    """

    flat: nn.Parameter | Tensor
    start: int
    first: int
    numel: int

    def of(self, flat: Tensor) -> Tensor:
        """Return these numbers in a tensor that is laid out as `flat`."""
        return flat.detach().narrow(0, self.start, self.numel)

    def write(self, flat: Tensor, value: Tensor) -> None:
        """Write these numbers of a complete parameter into a tensor that is laid out as `flat`."""
        self.of(flat).copy_(value.detach().flatten().narrow(0, self.first, self.numel))


def parts_of(zero: Any, groups: list[list[nn.Parameter]]) -> dict[nn.Parameter, Part]:
    """Return the part of each trained parameter in DeepSpeed's optimizer. `groups` are those of the optimizer."""
    parts = {}
    for number, group in enumerate(groups):
        for parameter in group:
            if hasattr(parameter, "ds_id"):
                index, start, numel = zero.grad_position[zero.get_param_id(parameter)]
                flat, first = zero.fp32_partitioned_groups_flat[index], numel * dist.get_rank()
                numel = max(0, min(numel, parameter.ds_numel - first))  # the last parts are padded
                parts[parameter] = Part(flat, start, first if numel else 0, numel)
                continue
            flats = getattr(zero, "single_partition_of_fp32_groups", None) or zero.fp32_groups_flat_partition
            flat, mapping = flats[number], parameter._hp_mapping
            if mapping is None:
                parts[parameter] = Part(flat, 0, 0, 0)
            else:
                place = mapping.get_hp_fragment_address()
                parts[parameter] = Part(flat, place.start, mapping.lp_fragment_address.start, place.numel)
    return parts


def joined(parameter: nn.Parameter, part: Part, flat: Tensor, device: torch.device) -> Tensor:
    """Return a parameter's numbers of all processes, in its shape."""
    numbers = torch.zeros(full_shape(parameter).numel(), dtype=torch.float32, device=device)
    numbers.narrow(0, part.first, part.numel).copy_(part.of(flat))
    if dist.get_world_size() > 1:
        dist.all_reduce(numbers)
    return numbers.view(full_shape(parameter))


def full_value(parameter: nn.Parameter) -> Tensor:
    """Return the numbers of a parameter as the forward uses them, complete."""
    if not hasattr(parameter, "ds_id"):
        return parameter.detach()
    with gathered(parameter):
        return parameter.detach().clone()


def load_weights(module: nn.Module, parts: Mapping[nn.Parameter, Part], state: Mapping[str, Tensor]) -> None:
    """Load weights and buffers by name, into what the forward uses and into what the optimizer updates."""
    for name, buffer in module.named_buffers():
        if name in state:
            buffer.copy_(state[name])
    for name, parameter in module.named_parameters():
        if name not in state:
            continue
        value = state[name].detach()
        if hasattr(parameter, "ds_id"):
            with gathered(parameter, write=True):
                parameter.data.copy_(value)
        else:
            parameter.data.copy_(value)
        if parameter in parts:
            parts[parameter].write(parts[parameter].flat, value)


def optimizer_state(
    names: list[list[str]], groups: list[list[nn.Parameter]], parts: Mapping[nn.Parameter, Part],
    optimizer: Optimizer, device: torch.device, keep: bool,
) -> dict[str, Any]:  # fmt: skip
    """Return the state of an optimizer by the names of parameters, as a run without DeepSpeed saves it.

    `keep`: True on the main process. The others take part, and get nothing.
    """
    state: dict[str, dict[str, Any]] = {}
    for group_names, group in zip(names, groups, strict=True):
        for name, parameter in zip(group_names, group, strict=True):
            part, own = parts[parameter], {}
            for key, value in optimizer.state.get(part.flat, {}).items():
                if isinstance(value, Tensor) and value.shape == part.flat.shape:
                    complete = joined(parameter, part, value, device)
                    own[key] = complete.cpu() if keep else None
                else:  # the parameters in a flat part share it, and with another parallelism each counts alone
                    own[key] = value.clone() if isinstance(value, Tensor) else value
            if keep and own:
                state[name] = own
    options = [
        {key: value for key, value in group.items() if key != "params"} | {"params": group_names}
        for group, group_names in zip(optimizer.param_groups, names, strict=True)
    ]
    return {"state": state, "param_groups": options}


def load_optimizer_state(
    names: list[list[str]], groups: list[list[nn.Parameter]], parts: Mapping[nn.Parameter, Part],
    optimizer: Optimizer, state: dict[str, Any],
) -> None:  # fmt: skip
    """Load what `optimizer_state` returned, also from another number of processes or another parallelism."""
    saved = {name: group for group in state["param_groups"] for name in group["params"]}
    optimizer.state.clear()
    for options, group_names, group in zip(optimizer.param_groups, names, groups, strict=True):
        options |= {key: value for key, value in saved[group_names[0]].items() if key != "params"}
        follows = options.get("fused") or options.get("capturable")  # torch keeps the count of steps on the device then
        for name, parameter in zip(group_names, group, strict=True):
            part = parts[parameter]
            own = optimizer.state[part.flat]
            for key, value in state["state"].get(name, {}).items():
                if isinstance(value, Tensor) and value.shape == full_shape(parameter):
                    part.write(own.setdefault(key, torch.zeros_like(part.flat)), value)
                elif isinstance(value, Tensor):
                    own.setdefault(key, value.clone().to(part.flat.device) if follows else value.clone())
                else:
                    own.setdefault(key, value)
