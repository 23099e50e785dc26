"""Count the floating-point operations that a model needs for its training, and look up the peak of a card: MFU.

Chowdhery et al. (PaLM, arXiv:2204.02311, appendix B): 6 operations per weight and token, 2 in the forward pass and 4 in
the backward pass, and 12 x heads x head size per layer for each pair of a token and one that it sees. Here, only what
is needed counts: the head at scored tokens, attention between tokens that see each other, 4 operations for a frozen
weight, which has no gradient, and a third of all for layers before the first trained weight, which have no backward
pass. Operations that are repeated to save memory, forward passes of a reference, and generation do not count.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from tunesmith_engine.model.parallelism import full_shape

PEAKS = {
    "B200": 2250e12,  # NVIDIA HGX B200 data sheet
    "GH200": 990e12,  # NVIDIA GH200 data sheet
    "H200 NVL": 835e12,  # NVIDIA H200 data sheet
    "H200": 989e12,
    "H100 PCIe": 756e12,  # NVIDIA H100 data sheet
    "H100 NVL": 835e12,
    "H100": 989e12,
    "A100": 312e12,  # NVIDIA A100 data sheet
    "L40S": 362e12,  # NVIDIA L40S data sheet
    "RTX 5090": 209.5e12,  # NVIDIA RTX Blackwell architecture white paper, with float32 accumulation
    "RTX 4090": 165.2e12,  # NVIDIA Ada architecture white paper, with float32 accumulation
    "MI300X": 1307.4e12,  # AMD Instinct MI300X data sheet
}
"""Operations per second of dense bfloat16 products by a part of the card's name. The first that fits counts."""
OTHERS = ("RTX 4090 D", "RTX 4090 Laptop", "RTX 5090 D", "RTX 5090 Laptop")
"""Other cards whose names contain one of PEAKS."""
ATTENTION = {"full_attention", "sliding_attention", "chunked_attention", "attention"}
EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")


def peak(device: torch.device) -> float | None:
    """Return the peak of a card in bfloat16, in operations per second, or None for a CPU and an unknown card."""
    return peak_of(torch.cuda.get_device_name(device)) if device.type == "cuda" else None


def peak_of(card: str) -> float | None:
    if any(name in card for name in OTHERS):
        return None
    return next((value for name, value in PEAKS.items() if name in card), None)


@dataclass(frozen=True)
class Flops:
    """Operations of forward and backward pass: per token, per scored token, and per pair of tokens in a layer.

    layers: of each layer with attention, how many tokens a token sees at most, None for all; and the share of the
    operations that is needed: 1, or a third without a backward pass.
    """

    token: float
    scored: float
    pair: float
    layers: tuple[tuple[int | None, float], ...]

    def pairs(self, positions: torch.Tensor) -> torch.Tensor:
        """Return the number of pairs, over all layers. positions: those of the tokens in their sequences."""
        seen = positions.double() + 1
        total = seen.new_zeros(())
        for window in {window for window, _ in self.layers}:
            share = sum(share for one, share in self.layers if one == window)
            total += share * (seen.clamp(max=window) if window else seen).sum()
        return total


def count(model: nn.Module) -> Flops | None:
    """Return the operations of a model with its trained weights as they are; None if its config does not tell them.

    The modules of the model have to be in the order of its forward pass, as they are in transformers.
    """
    config: Any = getattr(model, "config", None)
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    active = _active(model, config)
    windows = _windows(config)
    if active is None or windows is None:
        return None
    output: Any = getattr(model, "get_output_embeddings", lambda: None)()
    outside = {id(p) for p in output.parameters()} if output is not None else set()
    embeddings = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    token = scored = 0.0
    backward = False  # True from the first trained weight on
    for name, parameter in model.named_parameters():
        number = _numbers(model, name, parameter)
        backward = backward or parameter.requires_grad
        each = number * (2.0 + 2.0 * backward + 2.0 * parameter.requires_grad)
        if id(parameter) in outside:
            scored += each
        elif len(full_shape(parameter)) > 1 and id(parameter) not in embeddings:
            token += each * (active if ".experts." in name else 1.0)
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    first = _first_trained(model)
    layers = [(window, 1.0 if index >= first else 1 / 3) for index, (window, attends) in enumerate(windows) if attends]
    return Flops(token, scored, 12.0 * heads * size, tuple(layers))


def _first_trained(model: nn.Module) -> int:
    """Return the number of layers before the first one with a trained weight; 0 if the embedding is trained."""
    number = 0
    for name, parameter in model.named_parameters():
        layer = re.search(r"\.(\d+)\.", name)
        if parameter.requires_grad:
            return int(layer[1]) if layer else number
        number = int(layer[1]) + 1 if layer else number
    return number


def _numbers(model: nn.Module, name: str, parameter: nn.Parameter) -> int:
    """Return the weights in a complete parameter, also in a quantized one, which packs several into a number."""
    module = model.get_submodule(name.rpartition(".")[0])
    if isinstance(module, nn.Linear) and name.endswith(".weight") and not isinstance(parameter, DTensor):
        return module.in_features * module.out_features
    return full_shape(parameter).numel()


def _active(model: nn.Module, config: Any) -> float | None:
    """Return the share of the experts that a token uses: 1 without experts, None if unknown."""
    if not any(".experts." in name for name, _ in model.named_parameters()):
        return 1.0
    number = next((getattr(config, name) for name in EXPERTS if getattr(config, name, None)), None)
    used = getattr(config, "num_experts_per_tok", None)
    return used / number if number and used else None


def _windows(config: Any) -> list[tuple[int | None, bool]] | None:
    """Return how many tokens a token sees in each layer, and whether the layer has attention; None if unknown."""
    number = getattr(config, "num_hidden_layers", None)
    if not number or not getattr(config, "num_attention_heads", None) or not getattr(config, "hidden_size", None):
        return None
    window = getattr(config, "sliding_window", None)
    window = window if getattr(config, "use_sliding_window", True) else None
    kinds = getattr(config, "layer_types", None) or ["sliding_attention" if window else "full_attention"] * number
    return [(window if kind == "sliding_attention" else None, kind in ATTENTION) for kind in kinds]
