"""Compute log-ratios and lengths of pairs, from which the losses are computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tunesmith import Batch, DataError


@dataclass(frozen=True)
class Margins:
    """Numbers of P pairs: each field is a vector [P], in nats.

    chosen and rejected are log-ratios: log π(y|x) − log π_ref(y|x), summed over the tokens of an answer.
    chosen_score and rejected_score equal them unless f_divergence_type is set. chosen_logps and rejected_logps are
    log π(y|x); chosen_tokens and rejected_tokens are the lengths in tokens. `partners` are the numbers of the step
    that aot and aot_unpaired compare with.
    """

    chosen: Tensor
    rejected: Tensor
    chosen_score: Tensor
    rejected_score: Tensor
    chosen_logps: Tensor
    rejected_logps: Tensor
    chosen_tokens: Tensor
    rejected_tokens: Tensor
    partners: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def difference(self) -> Tensor:
        """The score of the chosen answer minus that of the rejected one [P]: Δ of most losses."""
        return self.chosen_score - self.rejected_score

    @property
    def mean_difference(self) -> Tensor:
        """The difference of scores per token [P]."""
        chosen = self.chosen_score / self.chosen_tokens.clamp_min(1)
        return chosen - self.rejected_score / self.rejected_tokens.clamp_min(1)


def check_pairs(batch: Batch) -> None:
    """Raise DataError if an example is not a pair."""
    for number, answers in enumerate(batch.by_example(batch.sequence_example)):
        if len(answers) != 2:
            entry, row = batch.origins[number]
            message = f"row {row + 1} of entry {entry}: expected a chosen and a rejected answer, got {len(answers)}"
            raise DataError(message, code="row", help="use a type that makes pairs")


def tail_weights(batch: Batch, alpha: float | None) -> Tensor:
    """Return the weight of each scored token [N]: 1 up to the length of the pair's shorter answer, then `alpha`.

    Length-desensitized DPO (arXiv 2409.06411): tokens beyond the length of the shorter answer count for less.
    """
    ones = torch.ones_like(batch.weight)
    if alpha is None:
        return ones
    lengths = torch.bincount(batch.sequence, minlength=batch.sequences)  # [S]
    shorter = lengths.view(-1, 2).amin(1).repeat_interleave(2)
    first = lengths.cumsum(0) - lengths
    offset = torch.arange(len(ones), device=ones.device) - first[batch.sequence]
    return torch.where(offset < shorter[batch.sequence], ones, alpha * ones)


def log_ratios(batch: Batch, logps: Tensor, reference: Tensor, alpha: float | None) -> tuple[Tensor, Tensor]:
    """Return log-ratios [S] and the policy's sums [S] from log-probabilities [N] of policy and reference."""
    weights = tail_weights(batch, alpha)
    return batch.sum_by_sequence((logps - reference) * weights), batch.sum_by_sequence(logps * weights)
