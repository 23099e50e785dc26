"""The losses of SimPO (arXiv 2405.14734) and CPO (arXiv 2401.08417) over a micro-batch. N scored tokens, P pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor

from tunesmith import Batch, Term, pair_metrics

if TYPE_CHECKING:
    from tunesmith_simpo import SimpoSettings

PER_TOKEN = ("simpo", "ipo")
"""Losses that compare the mean log-probability of a token; the others compare that of whole answers."""


@dataclass(frozen=True)
class Loss:
    """One method with its numbers. kind: simpo, sigmoid, hinge or ipo; alpha: weight of the likelihood."""

    method: str
    kind: str
    beta: float
    gamma: float
    alpha: float
    smoothing: float

    @classmethod
    def of(cls, method: str, settings: SimpoSettings) -> Loss:
        """The loss of `rl: simpo` or `rl: cpo`."""
        simpo = method == "simpo"
        alpha = settings.cpo_alpha if settings.cpo_alpha is not None else 0.0 if simpo else 1.0
        kind = "simpo" if simpo else settings.cpo_loss_type
        return cls(method, kind, settings.rl_beta, settings.simpo_gamma, alpha, settings.cpo_label_smoothing)

    def terms(self, batch: Batch, logps: Tensor) -> dict[str, Term]:
        """From log-probabilities [N] of the answers' tokens to the terms of a micro-batch.

        The method's own over the pairs; with alpha, "nll": alpha times the negative log-likelihood of the chosen
        answers, over all their tokens in the step.
        """
        whole = batch.sum_by_sequence(logps).view(-1, 2)
        compared = batch.mean_by_sequence(logps).view(-1, 2) if self.kind in PER_TOKEN else whole
        chosen, rejected = compared.unbind(1)
        nll = -whole[:, 0].sum()
        terms = {self.method: Term(self.of_pairs(chosen - rejected).sum(), "examples")}
        if self.alpha:
            terms["nll"] = Term(self.alpha * nll, "chosen_tokens")
        terms["nll_loss"] = Term(nll.detach(), "chosen_tokens", metric=True)
        return terms | pair_metrics(self.beta * chosen, self.beta * rejected, chosen, rejected)

    def of_pairs(self, difference: Tensor) -> Tensor:
        """The loss [P] of pairs from the difference [P] in log-probability of chosen and rejected."""
        if self.kind == "hinge":  # of SLiC, arXiv 2305.10425
            return F.relu(1 - self.beta * difference)
        if self.kind == "ipo":  # arXiv 2310.12036, equation 17
            return (difference - 1 / (2 * self.beta)) ** 2
        # equation 6 of SimPO; without a margin, equation 3 of CPO
        margin = self.beta * difference - (self.gamma if self.kind == "simpo" else 0.0)
        return -(1 - self.smoothing) * F.logsigmoid(margin) - self.smoothing * F.logsigmoid(-margin)
