"""Losses of SimPO (arXiv 2405.14734) and CPO (arXiv 2401.08417) over a micro-batch. N scored tokens, P pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor

from tunesmith import Batch, Term, pair_metrics

if TYPE_CHECKING:
    from tunesmith_simpo import SimpoSettings

PER_TOKEN = ("simpo", "ipo")
"""Losses that compare mean log-probabilities of tokens; the others compare log-probabilities of whole answers."""


@dataclass(frozen=True)
class Loss:
    """A loss and its numbers. kind: simpo, sigmoid, hinge or ipo. alpha: weight of the likelihood."""

    method: str
    kind: str
    beta: float
    gamma: float
    alpha: float
    smoothing: float

    @classmethod
    def of(cls, method: str, settings: SimpoSettings) -> Loss:
        """Return the loss of `rl: simpo` or `rl: cpo`."""
        simpo = method == "simpo"
        alpha = settings.cpo_alpha if settings.cpo_alpha is not None else 0.0 if simpo else 1.0
        kind = "simpo" if simpo else settings.cpo_loss_type
        return cls(method, kind, settings.rl_beta, settings.simpo_gamma, alpha, settings.cpo_label_smoothing)

    def terms(self, batch: Batch, logps: Tensor) -> dict[str, Term]:
        """Return the terms of a micro-batch from log-probabilities [N] of the answers' tokens, in nats.

        The term named after the method is averaged over the pairs. With alpha, "nll" is alpha times the negative
        log-likelihood of the chosen answers, divided by the number of their tokens in the step.
        """
        sums = batch.sum_by_sequence(logps).view(-1, 2)
        compared = batch.mean_by_sequence(logps).view(-1, 2) if self.kind in PER_TOKEN else sums
        chosen, rejected = compared.unbind(1)
        nll = -sums[:, 0].sum()
        terms = {self.method: Term(self.of_pairs(chosen - rejected).sum(), "examples")}
        if self.alpha:
            terms["nll"] = Term(self.alpha * nll, "chosen_tokens")
        terms["nll_loss"] = Term(nll.detach(), "chosen_tokens", metric=True)
        return terms | pair_metrics(self.beta * chosen, self.beta * rejected, chosen, rejected)

    def of_pairs(self, difference: Tensor) -> Tensor:
        """Return the loss of each pair [P] from its difference in log-probability [P]: chosen minus rejected."""
        if self.kind == "hinge":  # SLiC, arXiv 2305.10425
            return F.relu(1 - self.beta * difference)
        if self.kind == "ipo":  # arXiv 2310.12036, equation 17
            return (difference - 1 / (2 * self.beta)) ** 2
        # equation 6 of SimPO; without a margin, equation 3 of CPO
        margin = self.beta * difference - (self.gamma if self.kind == "simpo" else 0.0)
        return -(1 - self.smoothing) * F.logsigmoid(margin) - self.smoothing * F.logsigmoid(-margin)
