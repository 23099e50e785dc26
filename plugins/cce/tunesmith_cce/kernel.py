"""Score with cut cross-entropy (arXiv 2411.09009): log-probabilities without logits in memory.

The library supports a weight and a soft cap, and its backward pass takes only 16-bit hidden states. Scale and bias are
therefore applied to the hidden states, and both factors are cast to bfloat16, as mixed precision would cast them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tunesmith import ChunkedScorer, EnvironmentProblem, HeadWeights, OutputHead, Policy, Run, Scorer, ScoreRequest

DTYPE = torch.bfloat16
COLUMNS = 8
"""Columns that a bias adds to both factors. With 8 of them, rows of 16-bit numbers stay aligned to 16 bytes."""


def scorer(run: Run, head: OutputHead, exact: bool, install: str) -> Scorer:
    """Return a scorer that uses the kernels for what they compute. Raise EnvironmentProblem if they can't run.

    If the policy needs more than they compute, its reference uses logits too, so that both round alike.
    """
    check(run, install)
    chunked = ChunkedScorer(head)
    if needs_logits(run):
        return chunked
    kernel = logps_without_content if run.abstract else logps

    def score(hidden: Tensor, targets: Tensor, request: ScoreRequest) -> dict[str, Any]:
        weights = None if request.needs_logits or not len(targets) else head.weights()
        if weights is None:
            return chunked(hidden, targets, request)
        return {"logps": kernel(exact, weights, hidden, targets), "logps_at": {}}

    return score


def check(run: Run, install: str) -> None:
    """Raise EnvironmentProblem without a GPU that computes in bfloat16, and without the package."""
    where = run.config.place("cut_cross_entropy")
    if run.device.type != "cuda":
        message, help = "cut_cross_entropy needs a GPU, but torch does not find any", "drop it on machines without GPU"
        raise EnvironmentProblem(message, where=where, help=help)
    if run.world.axis("tensor").size > 1:
        message = "does not work with tensor_parallel_size, which has a scorer of its own for a part of the vocabulary"
        raise run.config.error("cut_cross_entropy", message, "drop it")
    if not run.world.half:
        message = "cut_cross_entropy computes in bfloat16, which this GPU does not support"
        raise EnvironmentProblem(message, where=where, help="drop it on this GPU, or use Ampere or newer")
    try:
        import cut_cross_entropy  # noqa: F401
    except ImportError as error:
        message = f"cut_cross_entropy can't be imported: {error}"
        raise EnvironmentProblem(message, where=where, help=install, code="package") from error


def needs_logits(run: Run) -> list[str]:
    """Return what the run needs from the logits other than the log-probabilities of targets."""
    needs = run.needs
    return [name for name in ("entropy", "topk", "logps_at", "temperature") if getattr(needs, name)]


def note(run: Run, policy: Policy) -> None:
    """Note in the summary why the kernels are not used. Call it on all processes."""
    name = "cut_cross_entropy is not used"
    if needs := needs_logits(run):
        run.note(name, f"a plugin needs {', '.join(needs)}, which requires logits; they are computed in chunks")
    elif policy.inside(policy.language_model.head) is None:
        run.note(name, "the head is not a plain matrix (does it have an adapter?); logits are computed in chunks")


def logps(exact: bool, head: HeadWeights, hidden: Tensor, target: Tensor) -> Tensor:
    """Return the log-probabilities [N] of targets [N] from hidden states [N, H], N > 0.

    With `exact`, the backward pass computes all blocks of the gradient.
    """
    from cut_cross_entropy import linear_cross_entropy

    states, weight = factors(head, hidden)
    filter_eps = None if exact else "auto"
    loss: Tensor = linear_cross_entropy(
        states, weight, target, softcap=head.softcap, reduction="none", filter_eps=filter_eps, impl="cce"
    )
    return -loss


def factors(head: HeadWeights, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """Return hidden states [N, H'] and a weight [V, H'] whose product is the logits [N, V] before the soft cap."""
    states, weight = hidden.to(DTYPE), head.weight.to(DTYPE)
    if head.bias is not None:  # the bias is a column of the weight, times a column of ones
        states = torch.cat([states, F.pad(states.new_ones(len(states), 1), (0, COLUMNS - 1))], 1)
        weight = torch.cat([weight, F.pad(head.bias.to(DTYPE)[:, None], (0, COLUMNS - 1))], 1)
    return (states * head.scale if head.scale != 1 else states), weight


def logps_without_content(exact: bool, head: HeadWeights, hidden: Tensor, target: Tensor) -> Tensor:
    """Replace `logps` on the meta device, with the same memory, so that `plan` can count it."""
    out: Tensor = _SameMemory.apply(*factors(head, hidden))  # type: ignore[no-untyped-call]
    return out


class _SameMemory(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor) -> Tensor:  # type: ignore[override]
        out = states.new_empty(len(states), dtype=torch.float32)
        ctx.save_for_backward(states, weight, torch.empty_like(out))  # the last is log Z of each token
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None]:  # type: ignore[override]
        states, weight, _ = ctx.saved_tensors
        return torch.empty_like(states), torch.empty_like(weight) if ctx.needs_input_grad[1] else None
