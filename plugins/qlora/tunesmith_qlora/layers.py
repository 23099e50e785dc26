"""Quantized linear layers for training: those of bitsandbytes, without what only inference needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import bitsandbytes as bnb
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

QUANTIZED = (bnb.nn.Linear4bit, bnb.nn.Linear8bitLt)


class Base4bit(bnb.nn.Linear4bit):
    """A frozen layer of 4 bits. It has the scales as buffers, so that the weight may be a shard.

    It differs from its base class in three ways. Its state has no scales, because checkpoints do not contain frozen
    weights. The scales are read from the layer. And the weight is never repacked: on a CPU with AVX512-BF16, a forward
    without gradients would repack it for a kernel without a backward, and the steps after an evaluation would train
    without the gradients of the layer.
    """

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        nn.Linear._save_to_state_dict(self, destination, prefix, keep_vars)  # type: ignore[no-untyped-call]

    def forward(self, x: Tensor) -> Tensor:
        """Return the output [..., out_features] for x [..., in_features]."""
        dtype = self.compute_dtype or x.dtype
        bias = None if self.bias is None else self.bias.to(dtype)
        return bnb.matmul_4bit(x.to(dtype), self.weight, bias=bias, quant_state=self.quant_state).to(x.dtype)


class Base8bit(bnb.nn.Linear8bitLt):
    """A frozen layer of 8 bits. Its state has no scales; on a CPU, it computes alike in training and evaluation."""

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        nn.Linear._save_to_state_dict(self, destination, prefix, keep_vars)  # type: ignore[no-untyped-call]

    def forward(self, x: Tensor) -> Tensor:
        """Return the output [..., out_features] for x [..., in_features]."""
        if self.weight.CB is not None:
            self.init_8bit_state()
        # On a CPU, bitsandbytes dequantizes the weight in training, and quantizes the activations in an evaluation.
        self.state.is_training = self.training or x.device.type == "cpu"
        inputs = computed(x)
        bias = None if self.bias is None else self.bias.to(inputs.dtype)
        return bnb.matmul(inputs, self.weight, bias=bias, state=self.state).to(x.dtype)


def computed(x: Tensor) -> Tensor:
    """Return x in the data type of the surrounding autocast: a product of the library would not see it."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


def adopt(model: nn.Module) -> dict[str, nn.Linear]:
    """Turn the layers of bitsandbytes in a model into those of this module, and return them by name."""
    layers: dict[str, nn.Linear] = {}
    for name, module in model.named_modules():
        layer: Any = module
        if type(layer) is bnb.nn.Linear4bit:
            layer.__class__, state = Base4bit, layer.weight.quant_state
            layer.quant_state, scales = state, scales_in(state)
        elif type(layer) is bnb.nn.Linear8bitLt:
            layer.__class__ = Base8bit
            scales = {"scales": layer.weight.SCB}
        else:
            scales = {}
        for key, value in scales.items():
            layer.register_buffer(key, value, persistent=False)
        if isinstance(module, QUANTIZED):
            layers[name] = module
    return layers


def scales_in(state: Any) -> dict[str, Tensor]:
    """Return the tensors of a QuantState by name."""
    scales, second = {"scales": state.absmax, "codes": state.code}, state.state2
    if second is not None:
        scales |= {"second": second.absmax, "second_codes": second.code, "offset": state.offset}
    return scales


def bytes_of(layer: nn.Linear) -> int:
    """Return the bytes of a layer's quantized weight with its scales."""
    return sum(t.numel() * t.element_size() for t in (layer.weight, *layer.buffers()))


def quantized(module: nn.Module, options: Mapping[str, Any]) -> nn.Linear:
    """Return a quantized layer with the weights of a linear layer. `options` are arguments of BitsAndBytesConfig."""
    weight: Any = module.weight
    weight = (weight.T if isinstance(module, Conv1D) else weight).detach().contiguous()
    rows, columns = weight.shape
    has_bias = module.bias is not None
    layer: Any
    if options["load_in_8bit"]:
        threshold = options["llm_int8_threshold"]
        layer = bnb.nn.Linear8bitLt(columns, rows, has_bias, has_fp16_weights=False, threshold=threshold, device="meta")
        data = bnb.nn.Int8Params(weight, requires_grad=False, has_fp16_weights=False)
    else:
        kind, double, compute, storage = four_bit(options)
        layer = bnb.nn.Linear4bit(columns, rows, has_bias, compute, double, kind, storage, "meta")
        types = {"compress_statistics": double, "quant_type": kind, "quant_storage": storage}
        data = bnb.nn.Params4bit(weight, requires_grad=False, module=layer, **types)
    layer.weight, layer.bias = data.to(weight.device), module.bias
    return layer  # type: ignore[no-any-return]


def four_bit(options: Mapping[str, Any]) -> tuple[str, bool, torch.dtype, torch.dtype]:
    """Return the type of the numbers, whether scales are quantized, and the types of products and storage."""
    compute, storage = (getattr(torch, options[f"bnb_4bit_{key}"]) for key in ("compute_dtype", "quant_storage"))
    return options["bnb_4bit_quant_type"], options["bnb_4bit_use_double_quant"], compute, storage
