"""The engine's attention, registered with transformers under one name.

A model that is set to it gets the row's TreeMask as a keyword of its forward, and asks for no mask.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface

from tunesmith import TreeMask
from tunesmith_hf.kernels import attend_flex, attend_slices, attend_varlen

NAME = "tunesmith"


def choose(wanted: str, device: torch.device, forked: bool, told: bool = True) -> str:
    """The backend for a device: slices on a CPU; on a GPU varlen for rows without forks, flex for those with; padded
    for a model that can't be `told` a row's tree_mask."""
    if wanted != "auto":
        return wanted
    if not told:
        return "padded"
    if device.type == "cpu":
        return "slices"
    return "flex" if forked else "varlen"


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    *,
    tree_mask: TreeMask,
    backend: str = "slices",
    **unused: Any,
) -> tuple[Tensor, None]:
    """Attention of one packed row: query [1, heads, T, D] -> [1, T, heads, D], as transformers wants it."""
    plain = softcap is None and s_aux is None and not dropout
    if backend == "flex" and plain:
        out = attend_flex(query, key, value, tree_mask, scale=scaling, window=sliding_window)
    elif backend == "varlen" and plain and not tree_mask.forked:
        out = attend_varlen(query, key, value, tree_mask, scale=scaling, window=sliding_window)
    else:
        rate = dropout if module.training else 0.0
        out = attend_slices(
            query,
            key,
            value,
            tree_mask,
            scale=scaling,
            window=sliding_window,
            dropout=rate,
            softcap=softcap,
            sinks=s_aux,
        )
    return out.transpose(1, 2).contiguous(), None


def no_mask(*arguments: Any, **named: Any) -> None:
    """The tree_mask says what a mask would."""


def register() -> None:
    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, no_mask)


def dense_masks(tree_mask: TreeMask, windows: dict[str, int | None], dtype: torch.dtype) -> Tensor | dict[str, Tensor]:
    """The row's mask as transformers takes it from outside: [1, 1, T, T] floats, by layer type where they differ."""

    def additive(window: int | None) -> Tensor:
        hidden = ~tree_mask.visible(window)
        return torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill(hidden, torch.finfo(dtype).min)[
            None, None
        ]

    masks = {kind: additive(window) for kind, window in windows.items()}
    return next(iter(masks.values())) if len(masks) == 1 else masks
