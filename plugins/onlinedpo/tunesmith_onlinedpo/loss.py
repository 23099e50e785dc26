"""The loss of pairs. S sequences, E examples, of which some are pairs; log-probabilities are at the temperature."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tunesmith import Batch, Output, Policy, Term, pair_metrics
from tunesmith_onlinedpo import TRL

PAIRS = "pairs"
"""The count that the loss is divided by: an example without a pair is none."""


def prepare(policy: Policy, batches: Sequence[Batch]) -> None:
    """Add the column "ref_logps" [N] and the count of pairs to the micro-batches of a step."""
    for batch in batches:
        with policy.reference() as reference:
            batch.columns["ref_logps"] = reference(batch).logps
        batch.counts[PAIRS] = 0.0 if batch.dummy else float((batch.columns["advantage"] > 0).sum())


def terms(trl: TRL, out: Output, batch: Batch) -> dict[str, Term]:
    """Return the loss of the pairs, and what loggers show of them."""
    ratios = of_pairs(batch, batch.sum_by_sequence(out.logps - batch.columns["ref_logps"]))
    logps = of_pairs(batch, batch.sum_by_sequence(out.logps))
    paired, _ = of_pairs(batch, torch.ones_like(batch.columns["advantage"]))
    results = {"online_dpo": Term((losses(trl, *ratios) * paired).sum(), PAIRS)}
    for name, term in pair_metrics(trl.beta * ratios[0], trl.beta * ratios[1], *logps).items():
        results[name] = Term(term.sum, PAIRS, metric=True)
    return results


def losses(trl: TRL, chosen: Tensor, rejected: Tensor) -> Tensor:
    """Return the loss of log-ratios of policy to reference: −log σ(βΔ), or (Δ − 1/(2β))² for ipo, of the same shape."""
    difference = chosen - rejected
    if trl.loss_type == "ipo":
        return (difference - 1 / (2 * trl.beta)) ** 2
    return -F.logsigmoid(trl.beta * difference)


def of_pairs(batch: Batch, values: Tensor) -> tuple[Tensor, Tensor]:
    """Return the values [E] of the better completions and of the worse ones, from values [S] of sequences.

    They are 0 in an example without a pair. Their shape does not depend on how many pairs there are.
    """
    side, zeros = batch.columns["advantage"], values.new_zeros(batch.examples)
    better, worse = (zeros.index_add(0, batch.sequence_example, values * (side == sign)) for sign in (1, -1))
    return better, worse
