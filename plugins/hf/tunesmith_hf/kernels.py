"""Attention by a row's TreeMask: branch by branch with sdpa; on a GPU, flex_attention or a variable-length kernel."""

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
    """Attention of a row, branch by branch: query [1, H, T, D], key and value [1, K, T, D] -> [1, H, T, D].

    Nothing of the size of the row squared is made. With soft-capped scores (Gemma 2) or attention sinks (gpt-oss),
    which sdpa does not know, each branch is computed in the open.
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
            o = _attend_openly(q, k, v, part.mask, scale, dropout, softcap, sinks)
        outputs.append(o.transpose(1, 2))  # token by token, as the next layer reads it: joined without a second copy
    return torch.cat(outputs, 1).transpose(1, 2)


def _attend_openly(
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
    """The same on a GPU through flex_attention: the block mask reads branch and position of each token."""
    from torch.nn.attention.flex_attention import create_block_mask

    def make() -> Any:
        branch, position, table = tree_mask.branch(), tree_mask.positions(), tree_mask.table()

        def sees(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
            causal = (position[q] >= position[k]) | (branch[q] != branch[k])
            seen = (position[k] < table[branch[q], branch[k]]) & causal
            return seen if window is None else seen & (position[q] - position[k] < window)

        return create_block_mask(sees, None, None, tree_mask.length, tree_mask.length, device=str(tree_mask.device))

    mask = tree_mask.cached(("flex", window), make)
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
    """The same on a GPU through torch's variable-length kernel: rows whose branches see only themselves."""
    from torch.nn.attention.varlen import varlen_attn

    def make() -> tuple[Tensor, int]:
        bounds = torch.tensor([*tree_mask.start, tree_mask.length], dtype=torch.int32, device=tree_mask.device)
        return bounds, max(tree_mask.lengths)

    bounds, longest = tree_mask.cached("bounds", make)
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    span = (window - 1 if window else -1, 0)
    grouped = query.shape[1] != key.shape[1]
    out = varlen_attn(q, k, v, bounds, bounds, longest, longest, scale=scale, window_size=span, enable_gqa=grouped)
    return out.transpose(0, 1)[None]  # type: ignore[union-attr]
