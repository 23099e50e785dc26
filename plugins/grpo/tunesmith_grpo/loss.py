"""The loss of GRPO and its family, as sums over the tokens of a micro-batch.

N scored tokens, S sequences. ρ is the ratio of the policy to the one that sampled the completions, A the advantage.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from tunesmith import Batch, Output, Run, Term
from tunesmith_grpo import ENTROPY, TRL, GRPOSettings
from tunesmith_grpo.loss_names import CLIPPED, HIGH_ENTROPY, OFFERED_FILTERS, UNCERTAIN

LIMIT = math.log(1e-8), 20.0
"""Limits of the logarithm of a sequence's ratio in vespo."""


def terms(run: Run, out: Output, batch: Batch) -> dict[str, Term]:
    """Return the loss, and what loggers show of it."""
    trl = run.settings(GRPOSettings).trl
    logps: Tensor = out.logps
    old = batch.columns["old_logps"] if "old_logps" in batch.columns else logps.detach()
    advantage = batch.columns["advantage"]
    advantage = advantage if per_token(batch) else advantage[batch.sequence]
    log_ratio = logps - old
    if run.core.rl == "rloo":
        ratio = torch.exp(batch.sum_by_sequence(log_ratio))[batch.sequence]
    elif trl.importance_sampling_level == "sequence":
        ratio = torch.exp(batch.mean_by_sequence(log_ratio))[batch.sequence]
    else:
        ratio = torch.exp(log_ratio)
    loss = token_losses(trl, batch, logps, log_ratio, ratio, advantage)
    factor = token_factor(run, trl, out, batch, log_ratio.detach(), advantage)
    loss = loss if factor is None else loss * factor
    results = metrics(run, trl, out, batch, ratio.detach(), advantage)
    if "ref_logps" in batch.columns:
        difference = batch.columns["ref_logps"] - logps
        kl = torch.exp(difference) - difference - 1  # k3 (http://joschu.net/blog/kl-approx.html)
        kl = kl * ratio if trl.use_bias_correction_kl is not False else kl
        loss = loss + trl.beta * kl
        results["kl"] = Term((kl.detach() * batch.weight).sum(), "tokens", metric=True)
    results["policy"] = reduced(run, trl, batch, loss)
    coefficient = entropy_coefficient(run, trl)
    if coefficient:
        results["entropy_bonus"] = Term(
            -coefficient * entropy_sum(out, batch), UNCERTAIN if marked(batch) else "tokens"
        )
    return results


def marked(batch: Batch) -> bool:
    """Return True if top_entropy_quantile keeps only some tokens."""
    return UNCERTAIN in batch.columns


def entropy_sum(out: Output, batch: Batch) -> Tensor:
    """Return the sum of the entropies of tokens, of those that top_entropy_quantile keeps."""
    entropy: Tensor = out.entropy * batch.weight
    return (entropy * batch.columns[UNCERTAIN] if marked(batch) else entropy).sum()


def per_token(batch: Batch) -> bool:
    """Return True if advantages are given by token."""
    return batch.levels.get("advantage") == "token"


def token_losses(trl: TRL, batch: Batch, logps: Tensor, log_ratio: Tensor, ratio: Tensor, advantage: Tensor) -> Tensor:
    """Return the loss [N] of each token.

    Sources: GRPO (arXiv 2402.03300), DAPO (2503.14476), Dr. GRPO (2503.20783), CISPO (2506.13585), SAPO (2511.20347),
    LUSPO (2602.05261), VESPO (2602.10693).
    """
    high = trl.epsilon if trl.epsilon_high is None else trl.epsilon_high
    if trl.loss_type in CLIPPED:
        clipped = torch.clamp(ratio, 1 - trl.epsilon, 1 + high)
        limited = ratio if trl.delta is None else torch.clamp(ratio, max=trl.delta)
        return -torch.minimum(limited * advantage, clipped * advantage)
    if trl.loss_type == "cispo":
        return -torch.clamp(ratio, max=high).detach() * advantage * logps
    if trl.loss_type == "sapo":
        positive, negative = trl.sapo_temperature_pos, trl.sapo_temperature_neg
        tau = torch.where(advantage > 0, positive, negative)
        return -torch.sigmoid(tau * (ratio - 1)) * 4 / tau * advantage
    return -vespo_weight(trl, batch, log_ratio.detach(), advantage) * advantage * logps


def vespo_weight(trl: TRL, batch: Batch, log_ratio: Tensor, advantage: Tensor) -> Tensor:
    """Return φ(w) = w^k e^{λ(1 − w)} [N] of each token's sequence, where w is its ratio (VESPO, arXiv 2602.10693)."""
    log_w = batch.sum_by_sequence(log_ratio.clamp(-20.0, 20.0)).clamp(*LIMIT)[batch.sequence]
    gains = advantage >= 0
    k = torch.where(gains, trl.vespo_k_pos, trl.vespo_k_neg)
    rate = torch.where(gains, trl.vespo_lambda_pos, trl.vespo_lambda_neg)
    return torch.exp(rate + k * log_w - rate * log_w.exp())


def token_factor(run: Run, trl: TRL, out: Output, batch: Batch, log_ratio: Tensor, advantage: Tensor) -> Tensor | None:
    """Return the factor [N] of each token in the loss, or None if all are 1."""
    factor: Tensor | None = None
    if trl.off_policy_mask_threshold is not None:
        drift = batch.mean_by_sequence(-log_ratio)[batch.sequence]
        factor = ((advantage >= 0) | (drift <= trl.off_policy_mask_threshold)).float()
    if marked(batch):
        factor = batch.columns[UNCERTAIN] if factor is None else factor * batch.columns[UNCERTAIN]
    for name in [trl.token_filters] if isinstance(trl.token_filters, str) else trl.token_filters:
        own = run.offered(OFFERED_FILTERS, name, ("trl", "token_filters"))(out, batch, log_ratio, advantage)
        factor = own if factor is None else factor * own
    return factor


def reduced(run: Run, trl: TRL, batch: Batch, loss: Tensor) -> Term:
    """Return the sum of the losses of tokens, and what it is divided by in the full step."""
    if run.core.rl == "rloo":
        return Term(batch.mean_by_sequence(loss).sum(), "sequences")
    if trl.loss_type in ("grpo", "sapo"):
        return Term(batch.mean_by_sequence(loss).sum(), "sequences")
    total = (loss * batch.weight).sum()
    if trl.loss_type == "bnpo":
        return Term(total, "tokens")
    if trl.loss_type == "dr_grpo":
        return Term(total / trl.max_completion_length, "sequences")
    if trl.loss_type == "luspo":
        return Term(total, "sequences")
    return Term(total / batch.columns["step_tokens"][:1].clamp_min(1.0).sum(), 1.0)


def entropy_coefficient(run: Run, trl: TRL) -> float:
    """Return the weight of the entropy in this step."""
    state: Any = run.states.get(ENTROPY)
    return float(state.applied) if state is not None else trl.entropy_coef


def metrics(run: Run, trl: TRL, out: Output, batch: Batch, ratio: Tensor, advantage: Tensor) -> dict[str, Term]:
    """Return means for loggers: entropy, and the shares of ratios that are clipped, of tokens or of sequences."""
    high = trl.epsilon if trl.epsilon_high is None else trl.epsilon_high
    of_sequences = run.core.rl == "rloo" or trl.importance_sampling_level == "sequence"

    def mean(values: Tensor, of_sequences: bool = of_sequences) -> Term:
        values = values.detach().float()
        if of_sequences:
            return Term(batch.mean_by_sequence(values).sum(), "sequences", metric=True)
        return Term((values * batch.weight).sum(), "tokens", metric=True)

    results = {"entropy": mean(out.entropy, False)}
    if marked(batch):
        results[HIGH_ENTROPY] = Term(entropy_sum(out, batch).detach(), UNCERTAIN, metric=True)
    if trl.loss_type in CLIPPED:
        low_clipped = (ratio < 1 - trl.epsilon) & (advantage < 0)
        high_clipped = (ratio > 1 + high) & (advantage > 0)
        results["clip_ratio/low_mean"], results["clip_ratio/high_mean"] = mean(low_clipped), mean(high_clipped)
        results["clip_ratio/region_mean"] = mean(low_clipped | high_clipped)
    elif trl.loss_type == "cispo":
        results["cispo_clip_ratio"] = mean((ratio > high) & (advantage > 0))
    elif trl.loss_type == "vespo":
        results["vespo/phi_seq_mean"] = mean(vespo_weight(trl, batch, torch.log(ratio), advantage), True)
    if "kl" in batch.columns:  # of the round: rloo and reinforce_pp have it in the reward
        results["kl"] = Term(batch.columns["kl"].sum(), "tokens", metric=True)
    return results
