"""The losses of pairs: functions of Margins and Options that return the loss of each pair [P].

σ is the logistic function, β is options.beta, and ε is options.label_smoothing. c and r are the log-ratios of the
chosen and the rejected answer. Δ is the difference of their scores: c − r, unless f_divergence_type is set.
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
    """Return −log σ(βΔ): DPO (arXiv 2305.18290, equation 7)."""
    return -F.logsigmoid(options.beta * pair.difference)


def sigmoid_norm(pair: Margins, options: Options) -> Tensor:
    """Return −log σ(β(c/|y_w| − r/|y_l|)): DPO of length-normalized log-ratios, as in Tulu 3 (arXiv 2411.15124)."""
    return -F.logsigmoid(options.beta * pair.mean_difference)


def hinge(pair: Margins, options: Options) -> Tensor:
    """Return max(0, 1 − βΔ): the hinge of SLiC on log-ratios (RSO, arXiv 2309.06657)."""
    return torch.relu(1 - options.beta * pair.difference)


def ipo(pair: Margins, options: Options) -> Tensor:
    """Return (c/|y_w| − r/|y_l| − 1/(2β))²: IPO (arXiv 2310.12036, equation 17), per token as in its authors' runs."""
    return (pair.mean_difference - 1 / (2 * options.beta)) ** 2


def exo_pair(pair: Margins, options: Options) -> Tensor:
    """Return the KL divergence of (σ(βΔ), σ(−βΔ)) from (1 − ε, ε): EXO of pairs (arXiv 2402.00856, equation 16)."""
    target = pair.difference.new_tensor([1 - options.label_smoothing, options.label_smoothing]).log()
    logits = options.beta * torch.stack([pair.difference, -pair.difference], -1)  # [P, 2]
    return (torch.sigmoid(logits) * (F.logsigmoid(logits) - target)).sum(-1)


def nca_pair(pair: Margins, options: Options) -> Tensor:
    """Return −log σ(βc) − ½ log σ(−βc) − ½ log σ(−βr): noise contrastive alignment (arXiv 2402.05369)."""
    chosen, rejected = options.beta * pair.chosen, options.beta * pair.rejected
    return -F.logsigmoid(chosen) - 0.5 * F.logsigmoid(-chosen) - 0.5 * F.logsigmoid(-rejected)


def robust(pair: Margins, options: Options) -> Tensor:
    """Return [−(1 − ε) log σ(βΔ) + ε log σ(−βΔ)] / (1 − 2ε): unbiased under labels flipped with probability ε.

    Robust DPO (arXiv 2403.00409).
    """
    logits, noise = options.beta * pair.difference, options.label_smoothing
    return (noise * F.logsigmoid(-logits) - (1 - noise) * F.logsigmoid(logits)) / (1 - 2 * noise)


def bco_pair(pair: Margins, options: Options) -> Tensor:
    """Return −log σ(βc) − log σ(−βr): binary classifier optimization (arXiv 2404.04656) without its reward shift."""
    return -F.logsigmoid(options.beta * pair.chosen) - F.logsigmoid(-options.beta * pair.rejected)


def sppo_hard(pair: Margins, options: Options) -> Tensor:
    """Return (c − 1/(2β))² + (r + 1/(2β))²: SPPO (arXiv 2405.00675, equation 4.7) if the chosen answer always wins."""
    goal = 1 / (2 * options.beta)
    return (pair.chosen - goal) ** 2 + (pair.rejected + goal) ** 2


def aot(pair: Margins, options: Options) -> Tensor:
    """Compare margins of the policy with margins of the reference, rank by rank over the whole optimizer step.

    Paired distributional alignment by optimal transport (arXiv 2406.05882): log π(y_w) − log π(y_l) of a pair is
    compared with the margin of the reference that has the same rank in the step.
    """
    margin = pair.chosen_logps - pair.rejected_logps
    return _smoothed(margin - pair.partners["aot_reference"], options)


def aot_unpaired(pair: Margins, options: Options) -> Tensor:
    """Compare log-ratios of chosen answers with those of rejected ones, rank by rank over the whole optimizer step.

    Unpaired distributional alignment by optimal transport (arXiv 2406.05882). Two answers of the same rank may be in
    different micro-batches. Each pair therefore counts two comparisons, that of its chosen and that of its rejected
    answer, and treats the partner as a constant. The gradients add up to the gradient of all comparisons. The value
    is halved because each comparison is counted twice.
    """
    comparisons = _smoothed(pair.chosen - pair.partners["aot_rejected"], options)
    comparisons = comparisons + _smoothed(pair.partners["aot_chosen"] - pair.rejected, options)
    return comparisons - comparisons.detach() / 2


def _smoothed(difference: Tensor, options: Options) -> Tensor:
    logits, noise = options.beta * difference, options.label_smoothing
    return -(1 - noise) * F.logsigmoid(logits) - noise * F.logsigmoid(-logits)


def apo_zero(pair: Margins, options: Options) -> Tensor:
    """Return 1 − σ(βc) + σ(βr): APO for chosen answers better than the model's (arXiv 2408.06266, equation 7)."""
    return 1 - torch.sigmoid(options.beta * pair.chosen) + torch.sigmoid(options.beta * pair.rejected)


def apo_down(pair: Margins, options: Options) -> Tensor:
    """Return σ(βc) + 1 − σ(β(c − r)): APO for chosen answers worse than the model's (arXiv 2408.06266, equation 8)."""
    margin = pair.chosen - pair.rejected
    return torch.sigmoid(options.beta * pair.chosen) + 1 - torch.sigmoid(options.beta * margin)


def discopop(pair: Margins, options: Options) -> Tensor:
    """Return (1 − m)(−log σ(βΔ)) + m e^(−βΔ) with m = σ(βΔ/τ): DiscoPOP (arXiv 2406.08414, equation 5)."""
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
