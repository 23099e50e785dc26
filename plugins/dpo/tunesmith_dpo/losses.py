"""The losses of a pair: from Margins and Options to a loss of each pair [P].

σ is the logistic function, β options.beta, ε options.label_smoothing; c and r are the log-ratios of the chosen and the
rejected answer, Δ the difference of their scores (c − r, unless another divergence is asked for).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from tunesmith_dpo.margins import Margins
from tunesmith_dpo.options import Options

Loss = Callable[[Margins, Options], Tensor]


def sigmoid(pair: Margins, options: Options) -> Tensor:
    """−log σ(βΔ): DPO (arXiv 2305.18290, equation 7)."""
    return -F.logsigmoid(options.beta * pair.difference)


def sigmoid_norm(pair: Margins, options: Options) -> Tensor:
    """−log σ(β(c/|y_w| − r/|y_l|)): DPO of length-normalised log-ratios, as in Tulu 3 (arXiv 2411.15124)."""
    return -F.logsigmoid(options.beta * pair.mean_difference)


def hinge(pair: Margins, options: Options) -> Tensor:
    """max(0, 1 − βΔ): SLiC's hinge on log-ratios (RSO, arXiv 2309.06657)."""
    return torch.relu(1 - options.beta * pair.difference)


def ipo(pair: Margins, options: Options) -> Tensor:
    """(c/|y_w| − r/|y_l| − 1/(2β))²: IPO (arXiv 2310.12036, equation 17), per token as its authors ran it."""
    return (pair.mean_difference - 1 / (2 * options.beta)) ** 2


def exo_pair(pair: Margins, options: Options) -> Tensor:
    """KL of (σ(βΔ), σ(−βΔ)) from (1 − ε, ε): EXO of pairs (arXiv 2402.00856, equation 16)."""
    target = pair.difference.new_tensor([1 - options.label_smoothing, options.label_smoothing]).log()
    logits = options.beta * torch.stack([pair.difference, -pair.difference], -1)  # [P, 2]
    return (torch.sigmoid(logits) * (F.logsigmoid(logits) - target)).sum(-1)


def nca_pair(pair: Margins, options: Options) -> Tensor:
    """−log σ(βc) − ½ log σ(−βc) − ½ log σ(−βr): noise contrastive alignment (arXiv 2402.05369)."""
    chosen, rejected = options.beta * pair.chosen, options.beta * pair.rejected
    return -F.logsigmoid(chosen) - 0.5 * F.logsigmoid(-chosen) - 0.5 * F.logsigmoid(-rejected)


def robust(pair: Margins, options: Options) -> Tensor:
    """[−(1 − ε) log σ(βΔ) + ε log σ(−βΔ)] / (1 − 2ε): unbiased under labels flipped with probability ε.

    Robust DPO (arXiv 2403.00409).
    """
    logits, noise = options.beta * pair.difference, options.label_smoothing
    return (noise * F.logsigmoid(-logits) - (1 - noise) * F.logsigmoid(logits)) / (1 - 2 * noise)


def bco_pair(pair: Margins, options: Options) -> Tensor:
    """−log σ(βc) − log σ(−βr): binary classifier optimisation (arXiv 2404.04656) without its shift of rewards."""
    return -F.logsigmoid(options.beta * pair.chosen) - F.logsigmoid(-options.beta * pair.rejected)


def sppo_hard(pair: Margins, options: Options) -> Tensor:
    """(c − 1/(2β))² + (r + 1/(2β))²: SPPO (arXiv 2405.00675, equation 4.7), the chosen answer winning for certain."""
    goal = 1 / (2 * options.beta)
    return (pair.chosen - goal) ** 2 + (pair.rejected + goal) ** 2


def aot(pair: Margins, options: Options) -> Tensor:
    """Margins of the policy against margins of the reference, rank by rank over the whole optimizer step.

    Distributional alignment by optimal transport, paired (arXiv 2406.05882): log π(y_w) − log π(y_l) of a
    pair is compared with that number of the reference which has the same rank in the step.
    """
    margin = pair.chosen_logps - pair.rejected_logps
    return _smoothed(margin - pair.partners["aot_reference"], options)


def aot_unpaired(pair: Margins, options: Options) -> Tensor:
    """Log-ratios of the chosen answers against those of the rejected ones, rank by rank over the whole optimizer step.

    Distributional alignment by optimal transport, unpaired (arXiv 2406.05882). The two sides that meet
    may be of different micro-batches. So each pair counts two meetings, that of its chosen answer and that of its
    rejected one, with the other side held fixed: the gradients add up to that of all meetings, and the value, which
    each meeting enters twice, is halved.
    """
    meetings = _smoothed(pair.chosen - pair.partners["aot_rejected"], options)
    meetings = meetings + _smoothed(pair.partners["aot_chosen"] - pair.rejected, options)
    return meetings - meetings.detach() / 2


def _smoothed(difference: Tensor, options: Options) -> Tensor:
    logits, noise = options.beta * difference, options.label_smoothing
    return -(1 - noise) * F.logsigmoid(logits) - noise * F.logsigmoid(-logits)


def apo_zero(pair: Margins, options: Options) -> Tensor:
    """1 − σ(βc) + σ(βr): APO for answers better than the model's own (arXiv 2408.06266, equation 7)."""
    return 1 - torch.sigmoid(options.beta * pair.chosen) + torch.sigmoid(options.beta * pair.rejected)


def apo_down(pair: Margins, options: Options) -> Tensor:
    """σ(βc) + 1 − σ(β(c − r)): APO for answers worse than the model's own (arXiv 2408.06266, equation 8)."""
    margin = pair.chosen - pair.rejected
    return torch.sigmoid(options.beta * pair.chosen) + 1 - torch.sigmoid(options.beta * margin)


def discopop(pair: Margins, options: Options) -> Tensor:
    """(1 − m)(−log σ(βΔ)) + m e^(−βΔ) with m = σ(βΔ/τ): DiscoPOP (arXiv 2406.08414, equation 5)."""
    logits = options.beta * pair.difference
    share = torch.sigmoid(logits / options.tau)
    return (1 - share) * -F.logsigmoid(logits) + share * torch.exp(-logits)


LOSSES: dict[str, Loss] = {
    loss.__name__: loss
    for loss in (
        sigmoid, sigmoid_norm, hinge, ipo, exo_pair, nca_pair, robust, bco_pair, sppo_hard, aot, aot_unpaired,
        apo_zero, apo_down, discopop,
    )
}  # fmt: skip
