"""Prepare an optimizer step with the reference's log-probabilities, and compute the terms of its loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tunesmith import Batch, Output, PluginError, Policy, Run, Term, pair_metrics, split_pairs
from tunesmith_dpo import DPOSettings
from tunesmith_dpo.confidence import confidence
from tunesmith_dpo.coupled import COLUMNS, couple
from tunesmith_dpo.divergences import score
from tunesmith_dpo.losses import LOSSES
from tunesmith_dpo.margins import Margins, check_pairs, log_ratios
from tunesmith_dpo.options import OF_THE_STEP, OFFERS, losses_of, options_of


def prepare(run: Run, policy: Policy, batches: Sequence[Batch]) -> None:
    """Add the reference's log-probabilities "ref_logps" [N], the count "chosen_tokens" and partners to the batches."""
    for batch in batches:
        check_pairs(batch)
        with policy.reference() as reference:
            batch.columns["ref_logps"] = reference(batch).logps
        batch.counts["chosen_tokens"] = 0.0 if batch.dummy else float(is_chosen(batch).sum())
        if "margin" in batch.columns:
            run.note("margins of the rows", "not used: the losses of rl: dpo have no margin")
    if OF_THE_STEP & losses_of(run).keys():
        couple(run, policy, batches, run.settings(DPOSettings).ld_alpha)


def terms(run: Run, policy: Policy, out: Output, batch: Batch) -> dict[str, Term]:
    """Return the weighted losses of the run, by name, and the metrics of the pairs.

    Raises PluginError for a loss that is not a tensor [P].
    """
    settings = run.settings(DPOSettings)
    pair = margins(out.logps, batch, settings)
    weight = confidence(policy, out.hidden[-1], out.logps, batch) if settings.dpo_use_weighting else None
    losses: dict[str, Term] = {}
    for name, share in losses_of(run).items():
        if name == "sft":  # cross-entropy is a loss of tokens, so it is divided by the number of chosen tokens
            losses[name] = Term(-share * (out.logps * batch.weight)[is_chosen(batch)].sum(), "chosen_tokens")
            continue
        loss = (LOSSES.get(name) or run.offered(OFFERS, name, "dpo_loss_type"))(pair, options_of(settings))
        if loss.shape != pair.chosen.shape:
            shapes = f"[{len(pair.chosen)}], one number for each pair, got {list(loss.shape)}"
            raise PluginError(f"the loss {name!r} must return a tensor of shape {shapes}")
        losses[name] = Term(share * (loss if weight is None else loss * weight).sum(), "examples")
    return losses | metrics(pair, settings.rl_beta)


def margins(logps: Tensor, batch: Batch, settings: DPOSettings) -> Margins:
    """Return the pairs of a batch from the policy's log-probabilities [N]; the reference's are in the batch."""
    ratios, own = log_ratios(batch, logps, batch.columns["ref_logps"], settings.ld_alpha)
    scores = score(ratios, settings.f_divergence_type, settings.f_alpha_divergence_coef)
    lengths = batch.sum_by_sequence(torch.ones_like(logps))
    partners = {name: batch.columns[name] for name in COLUMNS if name in batch.columns}
    return Margins(
        *split_pairs(ratios), *split_pairs(scores), *split_pairs(own), *split_pairs(lengths), partners=partners
    )


def metrics(pair: Margins, beta: float) -> dict[str, Term]:
    """Return the metrics that TRL logs, averaged over pairs. Rewards are β times log-ratios."""
    return pair_metrics(beta * pair.chosen, beta * pair.rejected, pair.chosen_logps, pair.rejected_logps)


def is_chosen(batch: Batch) -> Tensor:
    """Return True for each scored token [N] of a chosen answer: the first sequence of each pair."""
    return batch.sequence % 2 == 0
