"""Compute an MLP in chunks of its tokens.

An MLP computes each token independently, so chunks change nothing except memory. The intermediate activations, which
are several times the hidden size, exist for one chunk at a time (Arctic Long Sequence Training, arXiv 2506.13996,
section 3.1).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tunesmith import PluginError

Forward = Callable[..., Any]


def find_mlps(model: nn.Module) -> dict[str, list[nn.Module]]:
    """Return the MLPs of a model by class name: LlamaMLP, GPTNeoXMLP, ... Adapters in them do not matter."""
    modules: dict[str, list[nn.Module]] = {}
    for module in model.modules():
        if type(module).__name__.endswith("MLP"):
            modules.setdefault(type(module).__name__, []).append(module)
    return modules


def tiled(forward: Forward, shards: int | None) -> Forward:
    """Return the forward of an MLP in chunks. The bound method `forward`, with its adapters, is called for each chunk.

    The result is a partial, not a closure, so that a deep copy of the module (a frozen reference) uses its own weights.
    """
    return functools.partial(_run, forward, shards)


def _run(forward: Forward, shards: int | None, states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Compute the same as forward(states): states [..., T, H] -> [..., T, out]."""
    if args or kwargs:
        raise _not_tileable(forward, "takes other arguments than the hidden states")
    count = shards or -(-states.shape[-2] // states.shape[-1])
    outputs = [_chunk(forward, part) for part in states.chunk(count, dim=-2)]
    return torch.cat(outputs, dim=-2) if len(outputs) > 1 else outputs[0]


def _chunk(forward: Forward, states: Tensor) -> Tensor:
    # A single chunk is recomputed too. Otherwise its activations would be kept, for every layer, until the backward.
    output = checkpoint(forward, states, use_reentrant=False) if torch.is_grad_enabled() else forward(states)
    if not isinstance(output, Tensor) or output.shape[:-1] != states.shape[:-1]:
        raise _not_tileable(forward, "does not return one vector per token")
    return output


def _not_tileable(forward: Forward, why: str) -> PluginError:
    name = type(getattr(forward, "__self__", forward)).__name__
    message = f"tiled_mlp can't compute {name} in chunks of tokens: it {why}"
    return PluginError(message, help="drop tiled_mlp for this model")
