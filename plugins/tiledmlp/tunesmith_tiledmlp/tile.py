"""An MLP over chunks of its tokens.

An MLP treats each token alone, so cutting the tokens changes nothing but memory: its intermediate activations, several
times the hidden size, exist for one chunk at a time (Arctic Long Sequence Training, arXiv 2506.13996, section 3.1).
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


def find(model: nn.Module) -> dict[str, list[nn.Module]]:
    """The MLPs of a model by their class's name: LlamaMLP, GPTNeoXMLP, ... Adapters inside them don't hide them."""
    found: dict[str, list[nn.Module]] = {}
    for module in model.modules():
        if type(module).__name__.endswith("MLP"):
            found.setdefault(type(module).__name__, []).append(module)
    return found


def tiled(forward: Forward, shards: int | None) -> Forward:
    """The forward of an MLP, over chunks. `forward` is bound, and called for each chunk, adapters and all.

    A partial rather than a closure: a deep copy of the module (a frozen reference) then computes with its own weights.
    """
    return functools.partial(_run, forward, shards)


def _run(forward: Forward, shards: int | None, states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """states [..., T, H] -> [..., T, out], the same as forward(states)."""
    if args or kwargs:
        raise _unfit(forward, "takes more than the hidden states")
    count = shards or -(-states.shape[-2] // states.shape[-1])
    outputs = [_chunk(forward, part) for part in states.chunk(count, dim=-2)]
    return torch.cat(outputs, dim=-2) if len(outputs) > 1 else outputs[0]


def _chunk(forward: Forward, states: Tensor) -> Tensor:
    # A single chunk is computed again too: its activations would otherwise stay, for every layer, until the backward.
    output = checkpoint(forward, states, use_reentrant=False) if torch.is_grad_enabled() else forward(states)
    if not isinstance(output, Tensor) or output.shape[:-1] != states.shape[:-1]:
        raise _unfit(forward, "gives more than one vector per token")
    return output


def _unfit(forward: Forward, why: str) -> PluginError:
    name = type(getattr(forward, "__self__", forward)).__name__
    return PluginError(
        f"tiled_mlp can't cut {name} into chunks of tokens: it {why}", help="drop tiled_mlp for this model"
    )
