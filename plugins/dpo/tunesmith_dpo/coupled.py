"""Partners of the pairs for aot and aot_unpaired, ranked over the whole optimizer step and all processes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tunesmith import Batch, Needs, Policy, Run, split_pairs
from tunesmith_dpo.margins import log_ratios

COLUMNS = ("aot_reference", "aot_rejected", "aot_chosen")


def couple(run: Run, policy: Policy, batches: Sequence[Batch], alpha: float | None) -> None:
    """Add the partners of each pair to the batches, as the columns [E] of `COLUMNS`; "ref_logps" [N] must be there.

    Ranks depend on the policy before the step, so these losses need one more forward pass than others do.
    """
    numbers = [_numbers(batch, policy(batch, Needs(logps=True)).logps, alpha) for batch in batches]
    local = [row for rows, batch in zip(numbers, batches, strict=True) for row in rows.tolist() if not batch.dummy]
    by_process = run.world.gather(local, axis="data")
    offset = sum(map(len, by_process[: run.world.data.rank]))
    margin, reference, chosen, rejected = (
        torch.tensor([row for rows in by_process for row in rows]).view(-1, 4).unbind(1)
    )
    columns = partners(margin, reference), partners(chosen, rejected), partners(rejected, chosen)
    for batch in batches:
        for name, values in zip(COLUMNS, columns, strict=True):
            own = values.new_zeros(batch.examples) if batch.dummy else values[offset : offset + batch.examples]
            batch.columns[name] = own.to(batch.weight.device)
        offset += 0 if batch.dummy else batch.examples


def partners(values: Tensor, others: Tensor) -> Tensor:
    """Return, for each of `values` [n], the one of `others` [n] that has the same rank: [n]."""
    rank = values.argsort(stable=True).argsort()
    return others.sort().values[rank]


def _numbers(batch: Batch, logps: Tensor, alpha: float | None) -> Tensor:
    """Return the policy's margin, the reference's margin and both log-ratios of each pair: [E, 4]."""
    ratios, own = log_ratios(batch, logps, batch.columns["ref_logps"], alpha)
    chosen, rejected = split_pairs(ratios)
    own_chosen, own_rejected = split_pairs(own)
    margin = own_chosen - own_rejected
    return torch.stack([margin, margin - (chosen - rejected), chosen, rejected], -1)
