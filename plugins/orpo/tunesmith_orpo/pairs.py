"""What is asked of a micro-batch of pairs, and what is logged of one. P pairs."""

from __future__ import annotations

import torch
from torch import Tensor

from tunesmith import Batch, DataError, PluginError, Term


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


def reward_terms(chosen: Tensor, rejected: Tensor, beta: float) -> dict[str, Term]:
    """From log-probabilities [P] of both answers, as the loss reads them, to the metrics that TRL's trainers log."""
    chosen, rejected = chosen.detach(), rejected.detach()
    values = {
        "rewards/chosen": beta * chosen,
        "rewards/rejected": beta * rejected,
        "rewards/margins": beta * (chosen - rejected),
        "rewards/accuracies": (chosen > rejected).float(),
        "logps/chosen": chosen,
        "logps/rejected": rejected,
    }
    return {name: Term(value.sum(), "examples", metric=True) for name, value in values.items()}
