"""Fused experts of 4 bits. transformers keeps the experts of a layer in parameters [experts, rows, columns].

They are dequantized while the layer computes. The backward dequantizes them again, so that not every layer keeps its
experts in float until then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import bitsandbytes as bnb
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.utils.parametrize import register_parametrization

from tunesmith import Run
from tunesmith_qlora.layers import four_bit, scales_in
from tunesmith_qlora.planned import packed, scales_of


class Recent:
    """The experts that a run has dequantized last, which the next use of the same ones reads."""

    def __init__(self, run: Run):
        self.owner: Experts | None = None
        self.weight: Tensor | None = None

    def of(self, owner: Experts, numbers: Tensor) -> Tensor:
        """Return the dequantized experts [experts, rows, columns] of a parameter."""
        if self.owner is not owner or self.weight is None:
            self.owner = self.weight = None  # free before the next ones are dequantized
            self.owner, self.weight = owner, owner.dequantized(numbers)
        return self.weight


class Experts(nn.Module):
    """The parametrization of a parameter of experts: numbers of 4 bits -> [experts, rows, columns]."""

    def __init__(self, recent: Recent, parameter: nn.Parameter, state: Any, scales: Mapping[str, Tensor]):
        super().__init__()
        self.recent, self.shape, self.dtype, self.state = recent, parameter.shape, parameter.dtype, state
        for name, value in scales.items():
            self.register_buffer(name, value, persistent=False)

    def forward(self, numbers: Tensor) -> Tensor:
        """Return the experts in float [experts, rows, columns]."""
        return self.recent.of(self, numbers)

    @torch.no_grad()
    def dequantized(self, numbers: Tensor) -> Tensor:
        if self.state is None:  # without content, for `plan`
            return torch.empty(self.shape, dtype=self.dtype, device=numbers.device)
        return bnb.functional.dequantize_4bit(numbers, self.state)


def fused(model: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Parameter]]:
    """Yield (module, name, parameter) for each parameter of fused experts."""
    for module in list(model.modules()):
        if type(module).__name__.endswith("Experts"):
            for name, parameter in list(module.named_parameters(recurse=False)):
                if parameter.ndim == 3:
                    yield module, name, parameter


def quantize(run: Run, model: nn.Module, options: Mapping[str, Any]) -> tuple[int, int]:
    """Quantize the fused experts of a model one by one. Return their number, and the bytes that they take now.

    Raise ConfigError if the model has none.
    """
    kind, double, _, storage = four_bit(options)
    recent, modules, number, total = run.owned(Recent), dict[int, nn.Module](), 0, 0
    for module, name, parameter in fused(model):
        if run.abstract:
            state, numbers = None, packed(parameter.numel(), double, kind, storage).data
            sizes = scales_of(parameter.numel(), double).items()
            scales = {key: torch.empty(size, dtype=dtype, device="meta") for key, (size, dtype) in sizes}
        else:
            weight = parameter.detach().to(run.device)
            numbers, state = bnb.functional.quantize_4bit(
                weight, compress_statistics=double, quant_type=kind, quant_storage=storage
            )
            scales = scales_in(state)
            del weight
        setattr(module, name, nn.Parameter(numbers, requires_grad=False))
        experts = Experts(recent, parameter, state, scales)
        register_parametrization(module, name, experts, unsafe=True)
        modules[id(module)] = module
        number += 1
        total += sum(t.numel() * t.element_size() for t in (numbers, *scales.values()))
        del parameter
    if not modules:
        raise run.config.error("quantize_moe_experts", "has no effect: the model has no fused experts", "drop it")
    run.patches.replace_in(list(modules.values()), "forward", forgetting, "forward of fused experts")
    return number, total


def forgetting(module: Any) -> Callable[..., Any]:
    """Return a forward of experts after which the backward dequantizes them again instead of keeping them."""
    forward = module.forward
    parameters = {name: experts[0] for name, experts in module.parametrizations.items()}

    def pack(tensor: Tensor) -> Any:
        for name, experts in parameters.items():
            weight = experts.recent.weight if experts.recent.owner is experts else None
            if weight is not None and tensor.untyped_storage()._cdata == weight.untyped_storage()._cdata:
                return name, tensor.size(), tensor.stride(), tensor.storage_offset()
        return tensor

    def unpack(saved: Any) -> Tensor:
        if isinstance(saved, Tensor):
            return saved
        name, *view = saved
        return getattr(module, name).as_strided(*view)

    def run(*arguments: Any, **options: Any) -> Any:
        with saved_tensors_hooks(pack, unpack):
            return forward(*arguments, **options)

    return run
