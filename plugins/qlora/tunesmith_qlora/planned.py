"""Quantized layers without content, for `plan`: they have the size of the real ones, and compute as these do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import bitsandbytes as bnb
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from tunesmith_qlora.layers import computed, four_bit

BLOCK, SECOND_BLOCK = 64, 256
"""Weights that share a scale, and scales that share a second one (arXiv 2305.14314, section 3)."""
CODES, SECOND_CODES = 16, 256
"""Numbers of values that a weight of 4 bits, and a scale of 8 bits, can have."""


class Product(torch.autograd.Function):
    """The product with a weight that forward and backward dequantize, each for itself, and do not keep."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: int, bias: Tensor | None, keeps_input: bool) -> Tensor:
        ctx.shape, ctx.x = (rows, x.shape[-1]), x if keeps_input else None
        return nn.functional.linear(x, x.new_empty(ctx.shape), bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return gradients[0] @ gradients[0].new_empty(ctx.shape), None, None, None


class Planned4bit(bnb.nn.Linear4bit):
    """A layer of 4 bits without content."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the output [..., out_features] for x [..., in_features]."""
        bias = self.bias if self.bias is None else self.bias.to(self.compute_dtype)
        return Product.apply(x.to(self.compute_dtype), self.out_features, bias, False).to(x.dtype)


class Planned8bit(bnb.nn.Linear8bitLt):
    """A layer of 8 bits without content."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the output [..., out_features] for x [..., in_features]."""
        return Product.apply(computed(x), self.out_features, self.bias, True).to(x.dtype)


def planned(module: nn.Module, options: Mapping[str, Any]) -> nn.Linear:
    """Return a layer on the meta device with the bytes of a quantized one. Scales are buffers, which `plan` counts."""
    weight: Any = module.weight
    rows, columns = reversed(weight.shape) if isinstance(module, Conv1D) else weight.shape
    bias: Any = module.bias
    layer: Any
    if options["load_in_8bit"]:
        layer = Planned8bit(columns, rows, bias is not None, has_fp16_weights=False, device="meta")
        data = torch.empty(rows, columns, dtype=torch.int8, device="meta")
        layer.weight = bnb.nn.Int8Params(data, requires_grad=False, has_fp16_weights=False)
        sizes = {"scales": (rows, torch.float32)}
    else:
        kind, double, compute, storage = four_bit(options)
        layer = Planned4bit(columns, rows, bias is not None, compute, double, kind, storage, "meta")
        layer.weight = packed(rows * columns, double, kind, storage)
        sizes = scales_of(rows * columns, double)
    layer.bias = bias
    for name, (number, dtype) in sizes.items():
        layer.register_buffer(name, torch.empty(number, dtype=dtype, device="meta"), persistent=False)
    return layer  # type: ignore[no-any-return]


def packed(numbers: int, double: bool, kind: str, storage: torch.dtype) -> Any:
    """Return a parameter on the meta device with the bytes of numbers of 4 bits."""
    rows = -(-numbers // (2 * storage.itemsize))
    data = torch.empty(rows, 1, dtype=storage, device="meta")
    return bnb.nn.Params4bit(
        data, False, compress_statistics=double, quant_type=kind, quant_storage=storage, bnb_quantized=True
    )


def scales_of(numbers: int, double: bool) -> dict[str, tuple[int, torch.dtype]]:
    """Return the sizes and data types of the scales of quantized numbers, by name."""
    blocks = -(-numbers // BLOCK)
    sizes = {"codes": (CODES, torch.float32)}
    if not double:
        return sizes | {"scales": (blocks, torch.float32)}
    second = {"second": (-(-blocks // SECOND_BLOCK), torch.float32), "second_codes": (SECOND_CODES, torch.float32)}
    return sizes | {"scales": (blocks, torch.uint8)} | second | {"offset": (1, torch.float32)}
