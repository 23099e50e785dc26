"""Compute log-probabilities of target tokens without the logits of all tokens in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from tunesmith.plugins.plugin import Needs

CHUNK = 2**24
"""Logits computed at a time: 64 MiB in float32. glibc serves blocks of up to 32 MiB from its heap, where freed chunks
leave holes, so memory would grow with the number of chunks."""
KEPT = 2**26
"""Logits of a micro-batch that may stay in memory for the backward: 256 MiB in float32. The rest is recomputed."""


def score_tokens(
    head: Callable[[Tensor], Tensor], hidden: Tensor, target: Tensor, needs: Needs, ids: Sequence[Tensor] = ()
) -> dict[str, Any]:
    """Return log-probabilities of targets [N] from hidden states [N, H], and the other outputs in `needs`.

    ids are [N, K] token ids, one tensor for each name in `needs.logps_at`. The head runs chunk by chunk. Chunks whose
    logits fit in `KEPT` keep them for the backward, and the others compute them again there, so memory does not grow
    with N times the vocabulary.
    """

    def score_chunk(states: Tensor, targets: Tensor, *columns: Tensor) -> tuple[Tensor, ...]:
        # In float32, because bfloat16 rounds log-probabilities below -8 to multiples of 1/16.
        logps = torch.log_softmax(head(states).float(), -1)
        results = [logps.gather(-1, targets[:, None])[:, 0]]
        if needs.entropy:
            results.append(-(logps.exp() * logps).sum(-1))
        if needs.topk:
            results += logps.topk(needs.topk, -1)
        return (*results, *(logps.gather(-1, column) for column in columns))

    # The width of the logits is measured: a model may pad its vocabulary beyond the tokenizer's.
    with torch.no_grad():
        vocabulary = head(hidden[:1]).shape[-1] if len(hidden) else 1
    size = max(1, CHUNK // vocabulary)
    # Without scored tokens, one empty chunk still runs: the outputs exist, and the head gets a gradient of zeros.
    starts = range(0, max(len(hidden), 1), size)
    chunks = []
    for start in starts:
        part = slice(start, start + size)
        inputs = (hidden[part], target[part], *(column[part] for column in ids))
        if torch.is_grad_enabled() and (start + size) * vocabulary > KEPT:
            chunks.append(checkpoint(score_chunk, *inputs, use_reentrant=False))
        else:
            chunks.append(score_chunk(*inputs))
    columns = [torch.cat(column) for column in zip(*chunks, strict=True)]
    names = ["logps", *["entropy"] * needs.entropy, *["topk_logps", "topk_ids"] * bool(needs.topk)]
    out: dict[str, Any] = dict(zip(names, columns, strict=False))
    out["logps_at"] = dict(zip(needs.logps_at, columns[len(names) :], strict=True))
    return out
