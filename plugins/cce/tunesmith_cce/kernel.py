"""Cut cross-entropy (arXiv 2411.09009) as a language_model's kernel: log-probabilities without logits in memory.

The library knows a weight and a cap, and its backward takes 16-bit hidden states alone. So scale and bias go into the
hidden states, and both factors are cast to bfloat16, as mixed precision would cast them.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tunesmith import EnvironmentProblem, Head, LanguageModel, Policy, Run

DTYPE = torch.bfloat16
COLUMNS = 8
"""By how much a bias widens both factors: rows of 16-bit numbers stay aligned to 16 bytes."""


def attach(run: Run, language_model: LanguageModel, exact: bool, install: str) -> None:
    """Give a language_model the kernels. Raises EnvironmentProblem where they can't run.

    Not where the policy needs more than they give: its reference then takes the same path, so that both round alike.
    """
    check(run, install)
    if not more(run):
        language_model.kernel = functools.partial(counted if run.abstract else logps, exact)


def check(run: Run, install: str) -> None:
    """Raises EnvironmentProblem for a device that is no GPU or can't compute in bfloat16, and for a missing package."""
    where = run.config.document.where(("cut_cross_entropy",), value=True)
    if run.device.type != "cuda":
        message, help = "cut_cross_entropy needs a GPU, and torch sees none", "drop it where there is no GPU"
        raise EnvironmentProblem(message, where=where, help=help)
    if not run.world.half:
        message = "cut_cross_entropy computes in bfloat16, which this GPU can't (Ampere and newer can)"
        raise EnvironmentProblem(message, where=where, help="drop it on this GPU")
    try:
        import cut_cross_entropy  # noqa: F401
    except ImportError as error:
        message = f"cut_cross_entropy can't be imported: {error}"
        raise EnvironmentProblem(message, where=where, help=install, code="package") from error


def more(run: Run) -> list[str]:
    """What this run asks of a prediction beside the log-probability of its target."""
    needs = run.needs
    return ["entropy"] * needs.entropy + ["topk"] * bool(needs.topk) + ["logps_at"] * bool(needs.logps_at)


def note(run: Run, policy: Policy) -> None:
    """Say in the summary why the kernels are not used, where they are not. On all processes."""
    name = "cut_cross_entropy is not used"
    if wanted := more(run):
        run.note(name, f"a plugin asks for {', '.join(wanted)}, which takes logits; they are computed in chunks")
    elif policy.inside(policy.language_model.head) is None:
        run.note(name, "the head is more than a matrix (an adapter on it?); logits are computed in chunks")


def logps(exact: bool, head: Head, hidden: Tensor, target: Tensor) -> Tensor:
    """Log-probabilities [N] of targets [N] by hidden states [N, H], N > 0; with `exact`, every gradient is computed."""
    from cut_cross_entropy import linear_cross_entropy

    states, weight = factors(head, hidden)
    skip = None if exact else "auto"
    loss: Tensor = linear_cross_entropy(
        states, weight, target, softcap=head.softcap, reduction="none", filter_eps=skip, impl="cce"
    )
    return -loss


def factors(head: Head, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """Hidden states [N, H'] and a weight [V, H'] whose product is what the head gives before it caps."""
    states, weight = hidden.to(DTYPE), head.weight.to(DTYPE)
    if head.bias is not None:  # what a column of ones is multiplied by
        states = torch.cat([states, F.pad(states.new_ones(len(states), 1), (0, COLUMNS - 1))], 1)
        weight = torch.cat([weight, F.pad(head.bias.to(DTYPE)[:, None], (0, COLUMNS - 1))], 1)
    return (states * head.scale if head.scale != 1 else states), weight


def counted(exact: bool, head: Head, hidden: Tensor, target: Tensor) -> Tensor:
    """What stands in for `logps` where tensors have no content: the same memory, no numbers."""
    out: Tensor = _Counted.apply(*factors(head, hidden))  # type: ignore[no-untyped-call]
    return out


class _Counted(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor) -> Tensor:  # type: ignore[override]
        out = states.new_empty(len(states), dtype=torch.float32)
        ctx.save_for_backward(states, weight, torch.empty_like(out))  # and log Z of each
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None]:  # type: ignore[override]
        states, weight, _ = ctx.saved_tensors
        return torch.empty_like(states), torch.empty_like(weight) if ctx.needs_input_grad[1] else None
