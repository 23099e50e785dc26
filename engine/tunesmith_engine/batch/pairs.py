"""What methods on pairs ask of a micro-batch and log of it. P pairs: a chosen and a rejected answer each."""

from __future__ import annotations

import torch
from torch import Tensor

from tunesmith.errors import DataError, PluginError
from tunesmith_engine.batch.batch import Batch
from tunesmith_engine.batch.terms import Term


def chosen_tokens(batch: Batch) -> int:
    """The scored tokens of all chosen answers.

    Raises PluginError for an example that is no pair, DataError for one with a side that trains nothing.
    """
    sizes = torch.bincount(batch.sequence_example, minlength=batch.examples)
    if not bool((sizes == 2).all()):
        raise PluginError(f"a pair has two answers, and an example has {int(sizes[sizes != 2][0])}")
    scored = torch.bincount(batch.sequence, minlength=batch.sequences).view(-1, 2)
    if not bool(scored.all()):
        pair = int((scored == 0).any(-1).nonzero()[0])
        side = "rejected" if scored[pair, 0] else "chosen"
        entry, row = batch.origins[pair]
        message = f"row {row + 1} of data entry {entry}: the {side} answer has no token that is trained"
        raise DataError(message, code="row", help="drop the row, or mend what masks all of its answer")
    return int(scored[:, 0].sum())


def pair_metrics(chosen: Tensor, rejected: Tensor, chosen_logps: Tensor, rejected_logps: Tensor) -> dict[str, Term]:
    """From rewards and log-probabilities [P] of both answers to the metrics that TRL's trainers log, per pair."""
    values = {
        "rewards/chosen": chosen,
        "rewards/rejected": rejected,
        "rewards/margins": chosen - rejected,
        "rewards/accuracies": (chosen > rejected).float(),
        "logps/chosen": chosen_logps,
        "logps/rejected": rejected_logps,
    }
    return {name: Term(value.detach().sum(), "examples", metric=True) for name, value in values.items()}
