"""What aot and aot_unpaired compare a pair with: numbers of the whole optimizer step, over all processes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tunesmith import Batch, Needs, Policy, Run
from tunesmith_dpo.margins import log_ratios, pairs_of

COLUMNS = ("aot_reference", "aot_rejected", "aot_chosen")


def couple(run: Run, policy: Policy, batches: Sequence[Batch], alpha: float | None) -> None:
    """Give each pair its partners, as the columns [E] of `COLUMNS`; "ref_logps" [N] is there already.

    Ranks depend on the policy as it is before the step, so it is asked once more than other losses need.
    """
    numbers = [_numbers(batch, policy(batch, Needs(logps=True)).logps, alpha) for batch in batches]
    mine = [row for rows, batch in zip(numbers, batches, strict=True) for row in rows.tolist() if not batch.dummy]
    everyone = run.world.gather(mine)
    place = sum(map(len, everyone[: run.world.rank]))
    margin, reference, chosen, rejected = torch.tensor([row for rows in everyone for row in rows]).view(-1, 4).unbind(1)
    columns = partners(margin, reference), partners(chosen, rejected), partners(rejected, chosen)
    for batch in batches:
        for name, values in zip(COLUMNS, columns, strict=True):
            own = values.new_zeros(batch.examples) if batch.dummy else values[place : place + batch.examples]
            batch.columns[name] = own.to(batch.weight.device)
        place += 0 if batch.dummy else batch.examples


def partners(values: Tensor, others: Tensor) -> Tensor:
    """For each of `values` [n] the one of `others` [n] that has the same rank: [n]."""
    rank = values.argsort(stable=True).argsort()
    return others.sort().values[rank]


def _numbers(batch: Batch, logps: Tensor, alpha: float | None) -> Tensor:
    """Of each pair the policy's margin, the reference's, and both log-ratios: [E, 4]."""
    ratios, own = log_ratios(batch, logps, batch.columns["ref_logps"], alpha)
    chosen, rejected = pairs_of(ratios)
    own_chosen, own_rejected = pairs_of(own)
    margin = own_chosen - own_rejected
    return torch.stack([margin, margin - (chosen - rejected), chosen, rejected], -1)
