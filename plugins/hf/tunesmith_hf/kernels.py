"""Compute attention with a TreeMask: by branches with sdpa, or on a GPU with flex_attention or a varlen kernel."""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tunesmith import TreeMask


def attend_slices(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    tree_mask: TreeMask,
    *,
    scale: float | None = None,
    window: int | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """Compute the attention of a pack by branches: query [1, H, T, D], key and value [1, K, T, D] -> [1, H, T, D].

    No tensor of size [T, T] is allocated. sdpa supports neither soft-capped scores (Gemma 2) nor attention sinks
    (gpt-oss). With these, each branch is computed by plain matrix products.
    """
    grouped = query.shape[1] != key.shape[1]
    lengths = tree_mask.lengths
    queries, keys, values = query.split(lengths, 2), key.split(lengths, 2), value.split(lengths, 2)
    outputs = []
    for part in tree_mask.slices(window):
        if not lengths[part.index]:
            outputs.append(queries[part.index].transpose(1, 2))
            continue
        q, k, v = queries[part.index], keys[part.index], values[part.index]
        if part.before:
            k = torch.cat([*(keys[b][:, :, :n] for b, n in part.before), k], 2)
            v = torch.cat([*(values[b][:, :, :n] for b, n in part.before), v], 2)
        if softcap is None and sinks is None:
            causal = part.mask is None
            o = F.scaled_dot_product_attention(q, k, v, part.mask, dropout, causal, scale=scale, enable_gqa=grouped)
        else:
            o = _attend_unfused(q, k, v, part.mask, scale, dropout, softcap, sinks)
        outputs.append(o.transpose(1, 2))  # tokens before heads, the order of the next layer: saves a copy after cat
    return torch.cat(outputs, 1).transpose(1, 2)


def _attend_unfused(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    scale: float | None,
    dropout: float,
    softcap: float | None,
    sinks: Tensor | None,
) -> Tensor:
    repeat = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1)
    scores = q @ k.transpose(2, 3) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if mask is None:
        mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril()
    scores = scores.masked_fill(~mask, float("-inf"))
    if sinks is not None:
        scores = torch.cat([scores, sinks.reshape(1, -1, 1, 1).expand(1, -1, q.shape[2], 1)], -1)
    weights = scores.softmax(-1, dtype=torch.float32).to(q.dtype)
    if sinks is not None:
        weights = weights[..., :-1]
    return F.dropout(weights, dropout) @ v


def attend_flex(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    tree_mask: TreeMask,
    *,
    scale: float | None = None,
    window: int | None = None,
) -> Tensor:
    """Compute the same as `attend_slices` with flex_attention. The block mask uses each token's branch and position."""
    from torch.nn.attention.flex_attention import create_block_mask

    def build() -> Any:
        branch, position, table = tree_mask.branch(), tree_mask.positions(), tree_mask.table()

        def sees(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
            causal = (position[q] >= position[k]) | (branch[q] != branch[k])
            visible = (position[k] < table[branch[q], branch[k]]) & causal
            return visible if window is None else visible & (position[q] - position[k] < window)

        return create_block_mask(sees, None, None, tree_mask.length, tree_mask.length, device=str(tree_mask.device))

    mask = tree_mask.cached(("flex", window), build)
    return _compiled_flex()(query, key, value, block_mask=mask, scale=scale, enable_gqa=query.shape[1] != key.shape[1])


@functools.cache
def _compiled_flex() -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=True)


def attend_varlen(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    tree_mask: TreeMask,
    *,
    scale: float | None = None,
    window: int | None = None,
) -> Tensor:
    """Compute the same as `attend_slices` with torch's varlen kernel, for packs whose branches see only themselves."""
    from torch.nn.attention.varlen import varlen_attn

    def build() -> tuple[Tensor, int]:
        bounds = torch.tensor([*tree_mask.start, tree_mask.length], dtype=torch.int32, device=tree_mask.device)
        return bounds, max(tree_mask.lengths)

    bounds, longest = tree_mask.cached("bounds", build)
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    span = (window - 1 if window else -1, 0)
    grouped = query.shape[1] != key.shape[1]
    out = varlen_attn(q, k, v, bounds, bounds, longest, longest, scale=scale, window_size=span, enable_gqa=grouped)
    return out.transpose(0, 1)[None]  # type: ignore[union-attr]
