"""Register the engine's attention with transformers under one name.

A model with this implementation gets the TreeMask of a pack as a keyword argument of its forward, and no dense mask.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface

from tunesmith import Stretch, TreeMask, attention_backends
from tunesmith_hf.kernels import attend_flex, attend_slices, attend_varlen

if TYPE_CHECKING:
    from tunesmith_hf.decoding import SharedCache

NAME = "tunesmith"


class Choice(NamedTuple):
    """The attention backend of packs in which no branch sees another one, and that of packs that fork."""

    plain: str
    forked: str

    def of(self, tree_mask: TreeMask) -> str:
        """Return the backend of a pack."""
        return self.forked if tree_mask.forked else self.plain


def choose(setting: str, device: torch.device, takes_mask: bool = True) -> Choice:
    """Return the attention backends for a value of attn_implementation.

    For "auto", that is "padded" if the model does not take a TreeMask. Otherwise it is "varlen" for packs without forks
    and "flex" for packs with forks, as far as the device runs them, and "slices" on a CPU. The kernel of "varlen" does
    not support forks, so "slices" computes these.
    """
    if setting == "varlen":
        return Choice("varlen", "slices")
    if setting != "auto":
        return Choice(setting, setting)
    if not takes_mask:
        return Choice("padded", "padded")
    backends = attention_backends(device)
    forked = "flex" if "flex" in backends else "slices"
    return Choice("varlen" if "varlen" in backends else forked, forked)


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
    tree_mask: TreeMask | None = None,
    backend: str = "slices",
    cache: SharedCache | None = None,
    stretch: Stretch | None = None,
    **unused: Any,
) -> tuple[Tensor, None]:
    """Compute the attention of one pack: query [1, heads, T, D] -> [1, T, heads, D], the order of transformers.

    With a cache, keys and values of the pack are stored in it. Without a TreeMask, the batch rows continue it. With a
    stretch, the tokens are a part of the pack, whose other parts other processes compute.
    """
    if tree_mask is None:
        assert cache is not None
        return cache.attend(module, query, key, value, scaling, sliding_window, softcap, s_aux), None
    if cache is not None:
        cache.store(module, key, value)
    plain = softcap is None and s_aux is None and not dropout
    options: dict[str, Any] = {"tree_mask": tree_mask, "scale": scaling, "window": sliding_window}
    if backend == "flex" and plain:
        kernel: Callable[..., Tensor] = attend_flex
    elif backend == "varlen" and plain and not tree_mask.forked:
        kernel = attend_varlen
    else:
        kernel = attend_slices
        sinks = s_aux if s_aux is None or stretch is None else stretch.own_heads(s_aux)
        options |= {"dropout": dropout if module.training else 0.0, "softcap": softcap, "sinks": sinks}
    if stretch is None:
        out = kernel(query, key, value, **options)
    else:
        out = stretch.attend(functools.partial(kernel, **options), query, key, value)
    return out.transpose(1, 2).contiguous(), None


def no_mask(*arguments: Any, **named: Any) -> None:
    """Build no mask, because `attend` gets the TreeMask."""


def register() -> None:
    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, no_mask)


def dense_masks(tree_mask: TreeMask, windows: dict[str, int | None], dtype: torch.dtype) -> Tensor | dict[str, Tensor]:
    """Return the mask of a pack as transformers accepts it: [1, 1, T, T] floats that are added to the scores.

    If the layers have several types, return a dict with a mask for each type.
    """

    def additive(window: int | None) -> Tensor:
        hidden = ~tree_mask.visible(window)
        return torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill(hidden, torch.finfo(dtype).min)[
            None, None
        ]

    masks = {kind: additive(window) for kind, window in windows.items()}
    return next(iter(masks.values())) if len(masks) == 1 else masks
