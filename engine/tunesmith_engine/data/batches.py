"""Distribute the packs of an optimizer step over processes and micro-batches.

The packs of a step go to micro-batches in order, and the micro-batches to processes in turn. The examples of a step
therefore do not depend on how many processes there are, or on how many micro-batches each of them accumulates.
"""

from __future__ import annotations

import math

import numpy as np

from tunesmith.run import Run
from tunesmith_engine.batch.batch import Batch, collate
from tunesmith_engine.batch.examples import Example
from tunesmith_engine.batch.packing import pack

Packs = list[list[Example]]


def micro_batches(packs: Packs, rank: int, size: int, per_batch: int) -> tuple[list[list[Example]], int]:
    """Return a process's micro-batches of the packs of a step, and how many micro-batches every process must run."""
    groups = [[e for members in packs[i : i + per_batch] for e in members] for i in range(0, len(packs), per_batch)]
    return groups[rank::size], math.ceil(len(groups) / size)


def build_batches(run: Run, groups: list[list[Example]], number: int, spare: list[Example]) -> list[Batch]:
    """Collate micro-batches on the device, and fill up to `number` with dummies made from an example of `spare`.

    Every process runs equally many forwards, because each of them communicates under sharding.
    """
    batches = [collate(group, share=run.shares_prompts) for group in groups]
    while len(batches) < number:
        dummy = collate(spare[:1], share=run.shares_prompts)
        dummy.dummy = True
        dummy.counts = dict.fromkeys(dummy.counts, 0.0)
        batches.append(dummy)
    return [batch.to(run.device) for batch in batches]


def repack(run: Run, examples: list[Example]) -> Packs:
    """Return packs of examples that were generated during the step; one example each if the run does not pack."""
    if not run.core.sample_packing:
        return [[e] for e in examples]
    widths = np.array([e.width for e in examples], np.int64)
    return [[examples[i] for i in members] for members in pack(widths, run.core.sequence_len)]
