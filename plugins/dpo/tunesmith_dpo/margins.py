"""From log-probabilities of tokens to what the losses of pairs are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tunesmith import Batch, DataError


@dataclass(frozen=True)
class Margins:
    """P pairs, each a vector [P], in nats.

    chosen and rejected are log-ratios: log π(y|x) − log π_ref(y|x), summed over the tokens of an answer.
    chosen_score and rejected_score are the same, unless f_divergence_type says otherwise. chosen_logps and
    rejected_logps are log π(y|x); chosen_tokens and rejected_tokens the lengths. `partners` are numbers of the step
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
        """Score of the chosen answer less that of the rejected one [P]: Δ of most losses."""
        return self.chosen_score - self.rejected_score

    @property
    def mean_difference(self) -> Tensor:
        """The same of scores for each token [P]."""
        chosen = self.chosen_score / self.chosen_tokens.clamp_min(1)
        return chosen - self.rejected_score / self.rejected_tokens.clamp_min(1)


def pairs_of(values: Tensor) -> tuple[Tensor, Tensor]:
    """Values [2P] of sequences to those of the chosen answers [P] and of the rejected ones [P]."""
    chosen, rejected = values.view(-1, 2).unbind(1)
    return chosen, rejected


def check_pairs(batch: Batch) -> None:
    """Raises DataError where an example is no pair."""
    for number, answers in enumerate(batch.by_example(batch.sequence_example)):
        if len(answers) != 2:
            entry, row = batch.origins[number]
            message = f"row {row} of entry {entry} gives {len(answers)} answers, and a pair has a chosen and a rejected"
            raise DataError(message, code="row", help="take a type that makes pairs")


def tail_weights(batch: Batch, alpha: float | None) -> Tensor:
    """Weight of each scored token [N]: 1 up to the length of the pair's shorter answer, `alpha` beyond.

    Length-desensitised DPO (arXiv 2409.06411): what the longer answer says more counts for less.
    """
    ones = torch.ones_like(batch.weight)
    if alpha is None:
        return ones
    lengths = torch.bincount(batch.sequence, minlength=batch.sequences)  # [S]
    shorter = lengths.view(-1, 2).amin(1).repeat_interleave(2)
    first = lengths.cumsum(0) - lengths
    place = torch.arange(len(ones), device=ones.device) - first[batch.sequence]
    return torch.where(place < shorter[batch.sequence], ones, alpha * ones)


def log_ratios(batch: Batch, logps: Tensor, reference: Tensor, alpha: float | None) -> tuple[Tensor, Tensor]:
    """From log-probabilities [N] by policy and reference: log-ratios [S] and the policy's own sums [S]."""
    weights = tail_weights(batch, alpha)
    return batch.sum_by_sequence((logps - reference) * weights), batch.sum_by_sequence(logps * weights)
