"""Quantized layers under FSDP2: the bits are shards like other weights, and each process has the scales of all."""

from __future__ import annotations

from torch import nn

from tunesmith_qlora.layers import Base4bit


def prepare(model: nn.Module) -> None:
    """Turn the quantized weights of a model into plain parameters, which FSDP2 shards."""
    for module in model.modules():
        if isinstance(module, Base4bit):
            module.weight = nn.Parameter(module.weight.data, requires_grad=False)
