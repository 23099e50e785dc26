"""Check and count the pairs of a micro-batch, and compute their metrics.

Each of the P pairs has a chosen and a rejected answer, in that order.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from tunesmith.errors import DataError, PluginError
from tunesmith_engine.batch.batch import Batch
from tunesmith_engine.batch.terms import Term


def split_pairs(values: Tensor) -> tuple[Tensor, Tensor]:
    """Split values [2P] of sequences into those of the chosen answers [P] and those of the rejected ones [P]."""
    chosen, rejected = values.view(-1, 2).unbind(1)
    return chosen, rejected


def count_chosen_tokens(batches: Iterable[Batch]) -> None:
    """Set the count "chosen_tokens" of each batch, by which a loss of the chosen answers' tokens is divided.

    Call it in prepare_step. Raises what `chosen_tokens` raises.
    """
    for batch in batches:
        batch.counts["chosen_tokens"] = chosen_tokens(batch)


def chosen_tokens(batch: Batch) -> int:
    """Return the number of scored tokens of all chosen answers.

    Raises PluginError for an example that is not a pair, and DataError for a pair with an answer that is not trained.
    """
    answers = torch.bincount(batch.sequence_example, minlength=batch.examples)
    if not bool((answers == 2).all()):
        raise PluginError(f"a pair must have two answers, got an example with {int(answers[answers != 2][0])}")
    scored = torch.bincount(batch.sequence, minlength=batch.sequences).view(-1, 2)
    if not bool(scored.all()):
        pair = int((scored == 0).any(-1).nonzero()[0])
        side = "rejected" if scored[pair, 0] else "chosen"
        entry, row = batch.origins[pair]
        message = f"row {row + 1} of data entry {entry}: the {side} answer has no trained token"
        raise DataError(message, code="row", help="drop the row, or fix what masks all tokens of the answer")
    return int(scored[:, 0].sum())


def pair_metrics(chosen: Tensor, rejected: Tensor, chosen_logps: Tensor, rejected_logps: Tensor) -> dict[str, Term]:
    """Return the metrics that TRL's trainers log, averaged over pairs.

    chosen and rejected are the rewards [P] of both answers; chosen_logps and rejected_logps their log-probabilities [P]
    in nats.
    """
    values = {
        "rewards/chosen": chosen,
        "rewards/rejected": rejected,
        "rewards/margins": chosen - rejected,
        "rewards/accuracies": (chosen > rejected).float(),
        "logps/chosen": chosen_logps,
        "logps/rejected": rejected_logps,
    }
    return {name: Term(value.detach().sum(), "examples", metric=True) for name, value in values.items()}
