"""Quantized layers under FSDP2: the bits are shards like other weights, and each process has the scales of all."""

from __future__ import annotations

from torch import nn

from tunesmith_qlora.layers import Base4bit


class Packed(nn.Parameter):
    """Numbers of 4 bits in the data type of other weights. The type says that the data type means nothing."""


def prepare(model: nn.Module) -> None:
    """Turn the weights of quantized layers into parameters that FSDP2 can split: those of bitsandbytes can't be."""
    for module in model.modules():
        if isinstance(module, Base4bit):
            module.weight = Packed(module.weight.data, requires_grad=False)
