"""Compute log-probabilities if the vocabulary is divided over processes, without the logits of all tokens anywhere.

Each process has the logits of its own tokens. The processes exchange the maximum, the mass and the logits that were
asked for: a few numbers for each scored token. Source: Megatron-LM, arXiv 1909.08053, section 3.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from tunesmith_engine.model.language_model import HeadShard
from tunesmith_engine.model.scoring import CHUNK, KEPT, ChunkedScorer, OutputHead, ScoreRequest, logits_in_float32
from tunesmith_engine.runtime.world import Axis


class ShardedScorer:
    """A scorer for a head whose rows are divided over an axis, on which all processes have the same hidden states.

    What ChunkedScorer computes, with the same limits of memory. A head that is more than a matrix (an adapter on it)
    is called instead, which gathers the logits of a chunk.
    """

    def __init__(self, head: OutputHead, axis: Axis):
        self.head, self.axis = head, axis
        self.complete = ChunkedScorer(head)

    def __call__(self, hidden: Tensor, targets: Tensor, request: ScoreRequest) -> dict[str, Any]:
        shard = self.head.shard()
        if shard is None:
            return self.complete(hidden, targets, request)
        logits, group = _logits(shard, hidden.device.type), self.axis.group
        tokens = len(shard.head.weight)
        columns = [targets[:, None], *request.logps_at.values()]

        def score_chunk(states: Tensor, ids: Tensor, temperature: Tensor | None) -> tuple[Tensor, ...]:
            values = logits(states)
            if temperature is not None:
                values = values / temperature[:, None]
            if request.topk:
                ids = torch.cat([ids, self._largest(values, request.topk, shard.first)], 1)
            scores: tuple[Tensor, Tensor] = _Scores.apply(values, ids - shard.first, group)  # type: ignore[no-untyped-call]
            return *scores, ids[:, -request.topk :] if request.topk else ids[:, :0]

        # Each process has the gradient of its own logits, and the states need the sum.
        hidden = sum_gradients(hidden, group)
        ids = torch.cat(columns, 1)
        chunks, size = [], max(1, CHUNK // tokens)
        for start in range(0, max(len(hidden), 1), size):  # one empty chunk without tokens, as ChunkedScorer
            part = slice(start, start + size)
            inputs = (hidden[part], ids[part], None if request.temperature is None else request.temperature[part])
            if torch.is_grad_enabled() and (start + size) * tokens > KEPT:
                chunks.append(checkpoint(score_chunk, *inputs, use_reentrant=False))
            else:
                chunks.append(score_chunk(*inputs))
        logps, entropy, largest = (torch.cat(parts) for parts in zip(*chunks, strict=True))
        widths = [column.shape[1] for column in columns] + [request.topk]
        own, *others, topk = logps.split(widths, 1)
        out: dict[str, Any] = {"logps": own[:, 0]}
        out |= {"entropy": entropy} if request.entropy else {}
        out |= {"topk_logps": topk, "topk_ids": largest} if request.topk else {}
        return out | {"logps_at": dict(zip(request.logps_at, others, strict=True))}

    @torch.no_grad()
    def _largest(self, logits: Tensor, k: int, first: int) -> Tensor:
        """Return the ids [n, k] of the largest logits of all processes, in falling order."""
        values, ids = logits.topk(min(k, logits.shape[1]), -1)
        everywhere = [(torch.empty_like(values), torch.empty_like(ids)) for _ in range(self.axis.size)]
        dist.all_gather([pair[0] for pair in everywhere], values.contiguous(), group=self.axis.group)
        dist.all_gather([pair[1] for pair in everywhere], ids + first, group=self.axis.group)
        best = torch.cat([pair[0] for pair in everywhere], 1).topk(k, -1).indices
        return torch.cat([pair[1] for pair in everywhere], 1).gather(1, best)


def _logits(shard: HeadShard, device: str) -> Callable[[Tensor], Tensor]:
    """Return the function from states [n, H] to the logits of this process in float32."""
    head = shard.head
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else head.weight.dtype
    if dtype in (torch.bfloat16, torch.float16):
        return logits_in_float32(head, dtype)

    def logits(states: Tensor) -> Tensor:
        values = torch.nn.functional.linear(states.to(dtype), head.weight, head.bias).float() * head.scale
        return torch.tanh(values / head.softcap) * head.softcap if head.softcap else values

    return logits


def sum_gradients(values: Tensor, group: Any) -> Tensor:
    """Return values as they are; their gradient is summed over the processes of a group."""
    result: Tensor = _SumGradients.apply(values, group)  # type: ignore[no-untyped-call]
    return result


class _SumGradients(torch.autograd.Function):
    """The identity, whose gradient is summed over a group."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, group: Any) -> Tensor:
        ctx.group = group
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        total = gradient.contiguous().clone()
        dist.all_reduce(total, group=ctx.group)
        return total, None


class _Scores(torch.autograd.Function):
    """Log-probabilities [n, k] of tokens and entropies [n] in nats, from this process's part of the logits [n, V / N].

    ids: [n, k], the tokens, counted from the first of this process; those of other processes are outside.
    The gradients are those of `scoring.TokenScores`: they need no exchange, because all processes have the same loss.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, ids: Tensor, group: Any) -> tuple[Tensor, Tensor]:
        largest = logits.amax(-1, keepdim=True)
        dist.all_reduce(largest, dist.ReduceOp.MAX, group=group)
        mass = (logits - largest).exp_()
        own = (ids >= 0) & (ids < logits.shape[1])
        places = ids.clamp(0, logits.shape[1] - 1)
        chosen = logits.gather(-1, places).masked_fill(~own, 0)
        # one message: the mass, the sum of mass times logit, and the chosen logits
        sums = torch.cat([mass.sum(-1, keepdim=True), torch.linalg.vecdot(mass, logits)[:, None], chosen], 1)
        dist.all_reduce(sums, group=group)
        total, weighted, chosen = sums[:, :1], sums[:, 1], sums[:, 2:]
        log_total = largest + total.log()
        probabilities = mass.div_(total)
        entropy = log_total[:, 0] - weighted / total[:, 0]
        ctx.save_for_backward(probabilities, places, own, entropy)
        ctx.set_materialize_grads(False)
        return chosen - log_total, entropy

    @staticmethod
    def backward(ctx: Any, of_logps: Tensor | None, of_entropy: Tensor | None) -> tuple[Tensor | None, None, None]:
        probabilities, places, own, entropy = ctx.saved_tensors
        if of_logps is None and of_entropy is None:
            return None, None, None
        factor = torch.zeros_like(entropy) if of_logps is None else -of_logps.sum(-1)
        if of_entropy is None:
            gradient = probabilities * factor[:, None]
        else:
            tiny = torch.finfo(probabilities.dtype).tiny  # p log p is 0 at p = 0
            surprise = probabilities.clamp_min(tiny).log_().add_(entropy[:, None]).mul_(-of_entropy[:, None])
            gradient = surprise.add_(factor[:, None]).mul_(probabilities)
        if of_logps is not None:
            gradient.scatter_add_(-1, places, of_logps.masked_fill(~own, 0))
        return gradient, None, None
