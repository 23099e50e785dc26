"""Compute log-probabilities of target tokens without the logits of all tokens in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from tunesmith.run import Run
from tunesmith_engine.model.language_model import HeadShard, HeadWeights

CHUNK = 2**24
"""Logits computed at a time: 64 MiB in float32. glibc serves blocks of up to 32 MiB from its heap, where freed chunks
leave holes, so memory would grow with the number of chunks."""
KEPT = 2**26
"""Logits of a micro-batch that may stay in memory for the backward: 256 MiB in float32. The rest is recomputed."""


@dataclass(frozen=True)
class OutputHead:
    """The output head of a model, for a scorer. Call it within a forward only: sharded weights exist only there.

    logits: applies the head to hidden states, [n, H] -> [n, V], with everything that was added to it.
    weights: returns weight, bias, scale and soft cap, or None if they do not describe it (adapter on the head).
    shard: returns the part of them in this process, or None if the vocabulary is not divided over processes.
    """

    logits: Callable[[Tensor], Tensor]
    weights: Callable[[], HeadWeights | None] = lambda: None
    shard: Callable[[], HeadShard | None] = lambda: None


@dataclass(frozen=True)
class ScoreRequest:
    """A request for outputs of a scorer, besides "logps", the log-probabilities [N] of the targets.

    entropy: "entropy" [N]. topk: if not 0, "topk_logps" and "topk_ids" [N, topk]. logps_at: token ids [N, K] by name;
    "logps_at" is a dict of their log-probabilities, [N, K] by name, and is always returned. temperature: [N], by which
    the logits are divided first.
    """

    entropy: bool = False
    topk: int = 0
    logps_at: Mapping[str, Tensor] = field(default_factory=dict)
    temperature: Tensor | None = None

    @property
    def needs_logits(self) -> bool:
        """True if log-probabilities of the targets under the model's own distribution are not enough."""
        return bool(self.entropy or self.topk or self.logps_at) or self.temperature is not None


class Scorer(Protocol):
    """A function from hidden states [N, H] and targets [N] to outputs by name. N may be 0."""

    def __call__(self, hidden: Tensor, targets: Tensor, request: ScoreRequest) -> dict[str, Any]: ...


def build_scorer(run: Run, name: str, head: OutputHead) -> Scorer:
    """Return the default answer: logits in chunks, and of a part of the vocabulary if that is divided."""
    from tunesmith_engine.model.vocabulary import ShardedScorer

    tensor = run.world.axis("tensor")
    return ShardedScorer(head, tensor) if tensor.size > 1 else ChunkedScorer(head)


class ChunkedScorer:
    """A scorer that computes everything a request can ask for, from logits in chunks.

    Chunks whose logits fit in `KEPT` keep them for the backward, and the others compute them again there, so memory
    does not grow with N times the vocabulary.
    """

    def __init__(self, head: OutputHead):
        self.head = head

    def __call__(self, hidden: Tensor, targets: Tensor, request: ScoreRequest) -> dict[str, Any]:
        logits, ids = self._logits(hidden.device.type), request.logps_at
        cooled = request.temperature is not None

        def score_chunk(states: Tensor, targets: Tensor, *columns: Tensor) -> tuple[Tensor, ...]:
            # In float32, because bfloat16 rounds log-probabilities below -8 to multiples of 1/16.
            values, columns = self._cooled(logits, states, columns) if cooled else (logits(states).float(), columns)
            if (cooled or request.entropy) and not (request.topk or columns):
                scores: tuple[Tensor, Tensor] = TokenScores.apply(values, targets)  # type: ignore[no-untyped-call]
                return scores if request.entropy else scores[:1]
            logps = torch.log_softmax(values, -1)
            results = [logps.gather(-1, targets[:, None])[:, 0]]
            if request.entropy:
                results.append(-(logps.exp() * logps).sum(-1))
            if request.topk:
                results += logps.topk(request.topk, -1)
            return (*results, *(logps.gather(-1, column) for column in columns))

        # The width of the logits is measured: a model may pad its vocabulary beyond the tokenizer's.
        with torch.no_grad():
            vocabulary = logits(hidden[:1]).shape[-1] if len(hidden) else 1
        size = max(1, CHUNK // vocabulary)
        # Without scored tokens, one empty chunk still runs: the outputs exist, and the head gets a gradient of zeros.
        starts = range(0, max(len(hidden), 1), size)
        chunks = []
        for start in starts:
            part = slice(start, start + size)
            first = [] if request.temperature is None else [request.temperature]
            inputs = (hidden[part], targets[part], *(column[part] for column in [*first, *ids.values()]))
            if torch.is_grad_enabled() and (start + size) * vocabulary > KEPT:
                chunks.append(checkpoint(score_chunk, *inputs, use_reentrant=False))
            else:
                chunks.append(score_chunk(*inputs))
        columns = [torch.cat(column) for column in zip(*chunks, strict=True)]
        names = ["logps", *["entropy"] * request.entropy, *["topk_logps", "topk_ids"] * bool(request.topk)]
        out: dict[str, Any] = dict(zip(names, columns, strict=False))
        out["logps_at"] = dict(zip(ids, columns[len(names) :], strict=True))
        return out

    def _cooled(
        self, logits: Callable[[Tensor], Tensor], states: Tensor, columns: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return logits divided by the temperatures, the first of the columns, and the other columns.

        The states are divided instead of the logits where that gives the same: a state is much smaller.
        """
        temperature, head = columns[0][:, None], self.head.weights()
        linear = head is not None and head.bias is None and not head.softcap and states.dtype == torch.float32
        if linear and not torch.is_autocast_enabled(states.device.type):
            return logits(states / temperature).float(), columns[1:]
        return logits(states).float() / temperature, columns[1:]

    def _logits(self, device: str) -> Callable[[Tensor], Tensor]:
        """Return the function from states [n, H] to logits [n, V]: in float32, if the forward computes in 16 bits.

        Rounded to bfloat16, a logit of 20 is off by up to 0.06, and so is its log-probability. The head itself is
        called if its weights do not describe it.
        """
        head = self.head.weights()
        if head is None:
            return self.head.logits
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else head.weight.dtype
        if dtype not in (torch.bfloat16, torch.float16):
            return self.head.logits
        return logits_in_float32(head, dtype)


def logits_in_float32(head: HeadWeights, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """Return the function from states [n, H] to logits [n, V] in float32. The factors of the product are `dtype`."""
    half = head.weight.detach().to(dtype)  # once for all chunks

    def logits(states: Tensor) -> Tensor:
        values: Tensor = _Product.apply(states.to(dtype), head.weight, half)  # type: ignore[no-untyped-call]
        values = values if head.bias is None else values + head.bias.float()
        values = values if head.scale == 1 else values * head.scale
        return torch.tanh(values / head.softcap) * head.softcap if head.softcap else values

    return logits


class TokenScores(torch.autograd.Function):
    """Log-probabilities [n] of targets and entropies [n] in nats, from logits [n, V].

    Both have gradients: that of the logits is g (1[target] − p) − h p (log p + H), where g and h are those of the
    log-probability and of the entropy H.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        largest = logits.amax(-1, keepdim=True) if len(logits) else logits.new_zeros(0, 1)
        mass = (logits - largest).exp_()
        total = mass.sum(-1, keepdim=True)
        log_total = largest + total.log()
        logps = (logits.gather(-1, targets[:, None]) - log_total)[:, 0]
        probabilities = mass.div_(total)
        entropy = log_total[:, 0] - torch.linalg.vecdot(probabilities, logits)
        ctx.save_for_backward(probabilities, targets, entropy)
        ctx.set_materialize_grads(False)
        return logps, entropy

    @staticmethod
    def backward(ctx: Any, of_logps: Tensor | None, of_entropy: Tensor | None) -> tuple[Tensor | None, None]:
        probabilities, targets, entropy = ctx.saved_tensors
        if of_logps is None and of_entropy is None:
            return None, None
        factor = torch.zeros_like(entropy) if of_logps is None else -of_logps
        if of_entropy is None:
            gradient = probabilities * factor[:, None]
        else:
            # p log p is 0 at p = 0
            tiny = torch.finfo(probabilities.dtype).tiny
            surprise = probabilities.clamp_min(tiny).log_().add_(entropy[:, None]).mul_(-of_entropy[:, None])
            gradient = surprise.add_(factor[:, None]).mul_(probabilities)
        if of_logps is not None:
            gradient.scatter_add_(-1, targets[:, None], of_logps[:, None])
        return gradient, None


class _Product(torch.autograd.Function):
    """states [n, H] times the transpose of a weight [V, H], from 16-bit factors to float32.

    The gradient of the weight is float32 too: a sum over many chunks in bfloat16 would lose its small terms.
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, half: Tensor) -> Tensor:
        ctx.save_for_backward(states, half)
        return _multiply(states, half.T)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        states, half = ctx.saved_tensors
        gradient = gradient.to(half.dtype)
        of_states = _multiply(gradient, half).to(states.dtype) if ctx.needs_input_grad[0] else None
        of_weight = _multiply(gradient.T, states) if ctx.needs_input_grad[1] else None
        return of_states, of_weight, None


def _multiply(left: Tensor, right: Tensor) -> Tensor:
    """Return the product of two 16-bit matrices in float32."""
    if left.device.type == "cuda":
        return torch.mm(left, right, out_dtype=torch.float32)
    with torch.autocast(left.device.type, enabled=False):  # only CUDA has products with another type of result
        return left.float() @ right.float()
