"""Merge the layers of an adapter into weights of the base model, one module at a time and in float32."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from peft.tuners.lora import Linear, ParamWrapper
from peft.tuners.trainable_tokens import TrainableTokensLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import ModulesToSaveWrapper
from torch import Tensor, nn

from tunesmith import ModelError
from tunesmith_merge.weights import Weights

ADAPTER = "default"
ROWS_AT_ONCE = 256
"""Rows of a matrix whose update is in memory at a time: 4 MB in float32 for 4,096 columns."""


@dataclass
class Change:
    """A module of the base model that the adapter changes: its layers from the outermost one, or its new values.

    names: the parameters that change. values: those that are complete in the adapter. tied: the module shares its
    weight with another one, and the adapter updates both alike.
    """

    module: nn.Module
    layers: list[BaseTunerLayer] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    values: dict[str, Tensor] = field(default_factory=dict)
    tied: bool = False


def changes(wrapped: Any, names: dict[int, str]) -> dict[str, Change]:
    """Return the modules that an adapter changes, by name. `names` has the name of each base module by its id."""
    config = wrapped.peft_config[ADAPTER]
    result: dict[str, Change] = {}
    for module in wrapped.modules():
        if isinstance(module, BaseTunerLayer):
            base = module.get_base_layer()
            name = _name(base, names)
            change = result.setdefault(name, Change(base))
            change.layers.append(module)
            change.names |= {f"{name}.{parameter}" for parameter in _updated(module, base)}
            linked = isinstance(module, TrainableTokensLayer) and module.tied_adapter is not None
            change.tied |= linked or bool(getattr(config, "ensure_weight_tying", False))
        elif isinstance(module, ModulesToSaveWrapper):
            name, copy = _name(module.original_module, names), module.modules_to_save[ADAPTER]
            if any(isinstance(inner, BaseTunerLayer) for inner in copy.modules()):
                raise ModelError(f"{name} is trained completely and has an adapter as well", code="merge")
            values = {f"{name}.{parameter}": value.detach() for parameter, value in copy.named_parameters()}
            tied = bool(getattr(config, "ensure_weight_tying", False))
            result[name] = Change(module.original_module, names=set(values), values=values, tied=tied)
    for module in wrapped.modules():  # such as biases, which peft loads into the base model
        given = {p: v for p, v in _own(module) if v is not None and not v.is_meta} if id(module) in names else {}
        if given:
            name = names[id(module)]
            change = result.setdefault(name, Change(module))
            change.names |= {f"{name}.{parameter}" for parameter in given}
            if not change.layers:
                change.values |= {f"{name}.{parameter}": value.detach() for parameter, value in given.items()}
    return result


def _updated(layer: Any, base: nn.Module) -> list[str]:
    """Return the names of the parameters of a module that a layer of the adapter may update."""
    if isinstance(layer, ParamWrapper):
        return [layer.parameter_name]
    return ["weight"] if is_plain(layer) else [name for name, value in _own(base) if value is not None]


def _name(module: nn.Module, names: dict[int, str]) -> str:
    if id(module) not in names:
        raise ModelError(f"peft has put a {type(module).__name__} in place of a module", code="merge")
    return names[id(module)]


def _own(module: nn.Module) -> list[tuple[str, nn.Parameter | None]]:
    return list(module._parameters.items())


def merge(
    name: str, change: Change, weights: Weights, dtype: torch.dtype | None = None
) -> Iterator[tuple[str, Tensor]]:
    """Yield name and merged value of each parameter that changes, rounded once: to `dtype`, or to the type in the file.

    Layers that peft merges itself (all but plain LoRA, experts and rows) are returned in float32.
    """
    if change.values:
        yield from change.values.items()
        return
    if all(isinstance(layer, TrainableTokensLayer) for layer in change.layers):
        yield f"{name}.weight", merge_rows(change.layers, _load(weights, f"{name}.weight"), dtype)
    elif all(isinstance(layer, ParamWrapper) for layer in change.layers):
        for parameter in sorted(change.names):
            (layer,) = [layer for layer in change.layers if f"{name}.{layer.parameter_name}" == parameter]
            yield parameter, merge_experts(layer, _load(weights, parameter), dtype)
    elif len(change.layers) == 1 and is_plain(change.layers[0]) and change.names == {f"{name}.weight"}:
        yield f"{name}.weight", merge_linear(change.layers[0], _load(weights, f"{name}.weight"), dtype)
    else:
        with loaded(change.module, name, weights):
            for layer in reversed(change.layers):  # the innermost first, as in the forward pass
                _merge_by_peft(name, layer)
            for parameter in sorted(change.names):
                value = change.module._parameters[parameter.rpartition(".")[2]]
                assert value is not None
                yield parameter, value.detach()


def _load(weights: Weights, name: str, dtype: torch.dtype | None = None) -> Tensor:
    value = weights.load(name, dtype)
    if value is None:
        raise ModelError(f"{weights.folder} has no {name}, which the adapter updates", code="merge")
    return value


def _merge_by_peft(name: str, layer: Any) -> None:
    """Merge a layer into its base module with peft. Raises ModelError for a variant that does not merge."""
    try:
        layer.merge(adapter_names=[ADAPTER])
    except (NotImplementedError, ValueError, RuntimeError) as error:
        message = f"peft can't merge the adapter of {name}: {str(error)[:300] or type(error).__name__}"
        raise ModelError(message, help="use it with peft as it is", code="merge") from error
    layer.merged_adapters.clear()  # the base weights are not kept, so the layer is not merged afterwards


def is_plain(layer: BaseTunerLayer) -> bool:
    """Return True for LoRA on a linear layer without a variant such as DoRA: W + scaling · B A (arXiv 2106.09685)."""
    return (
        type(layer) is Linear
        and ADAPTER not in layer.lora_variant
        and not layer.fan_in_fan_out
        and layer.lora_B[ADAPTER].bias is None
    )


def _result(weight: Tensor, dtype: torch.dtype | None) -> Tensor:
    """Return the tensor that merged values are written to: the weight itself, unless its type changes."""
    return weight if dtype in (None, weight.dtype) else torch.empty_like(weight, dtype=dtype)


@torch.no_grad()
def merge_linear(layer: Any, weight: Tensor, dtype: torch.dtype | None) -> Tensor:
    """Return W + scaling · B A for a weight [out, in], computed in float32 for some rows at a time."""
    result, scaling = _result(weight, dtype), layer.scaling[ADAPTER]
    left, right = layer.lora_B[ADAPTER].weight.float(), layer.lora_A[ADAPTER].weight.float()
    for start in range(0, len(weight), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        result[rows] = (weight[rows].float() + scaling * (left[rows] @ right)).to(result.dtype)
    return result


@torch.no_grad()
def merge_experts(layer: Any, weight: Tensor, dtype: torch.dtype | None) -> Tensor:
    """Return fused experts [E, out, in] or [E, in, out] with the update of each expert, one expert at a time.

    peft stores A as [E · r, in] and B as [out, r · E]; a parameter without experts is a matrix.
    """
    number, scaling = layer.num_experts, layer.scaling[ADAPTER]
    if number == 1:
        with loaded_parameter(layer, weight.float()):
            return layer.get_param().detach() + layer.get_delta_weight(ADAPTER).view(weight.shape)
    right, left = layer.lora_A[ADAPTER].weight.float(), layer.lora_B[ADAPTER].weight.float()
    right = right.reshape(number, -1, right.shape[-1])  # [E, r, in]
    left = left.reshape(left.shape[0], -1, number)  # [out, r, E]
    result = _result(weight, dtype)
    for expert in range(number):
        update = scaling * (left[:, :, expert] @ right[expert])  # [out, in]
        update = update if layer._did_swap_in_out_features else update.T
        result[expert] = (weight[expert].float() + update).to(result.dtype)
    return result


@torch.no_grad()
def merge_rows(layers: list[Any], weight: Tensor, dtype: torch.dtype | None) -> Tensor:
    """Return embeddings [V, H] with the rows that the adapter trained."""
    result = weight if dtype is None else weight.to(dtype)
    for layer in layers:
        result[torch.tensor(layer.token_indices[ADAPTER])] = layer.trainable_tokens_delta[ADAPTER].to(result.dtype)
    return result


@contextlib.contextmanager
def loaded_parameter(layer: Any, value: Tensor) -> Iterator[None]:
    """Give the parameter that a layer updates a value within the block."""
    parameters, name = layer.get_base_layer()._parameters, layer.parameter_name
    before, parameters[name] = parameters[name], nn.Parameter(value, requires_grad=False)
    try:
        yield
    finally:
        parameters[name] = before


@contextlib.contextmanager
def loaded(module: nn.Module, name: str, weights: Weights) -> Iterator[None]:
    """Give a module its own parameters in float32 within the block; those that have values already keep them."""
    before = dict(module._parameters)
    for parameter, value in before.items():
        if value is not None and value.is_meta:
            tensor = _load(weights, f"{name}.{parameter}", torch.float32)
            module._parameters[parameter] = nn.Parameter(tensor, requires_grad=False)
    try:
        yield
    finally:
        module._parameters.update(before)
