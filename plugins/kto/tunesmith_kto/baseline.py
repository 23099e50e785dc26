"""The branches of a micro-batch that only the baseline is made of: scored once with the others, then left out.

T tokens, N scored tokens, M tokens of baselines, S sequences, R branches of the row.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import NamedTuple

import torch

from tunesmith import Batch, Layout


class Branch(NamedTuple):
    """A baseline in the row: its number among the branches, its first token, the end, and the token before the first,
    None where nothing comes before it."""

    number: int
    start: int
    end: int
    before: int | None


def branches_of(batch: Batch) -> list[Branch]:
    """The baselines of a batch: each is the last branch of its tree."""
    return list(_branches(batch, batch.layout)) if "baseline" in batch.columns else []


def _branches(batch: Batch, layout: Layout) -> Iterator[Branch]:
    roots = [number for number, seen in enumerate(layout.reach) if not seen]
    last = [root - 1 for root in [*roots[1:], len(layout.start)]]
    trees = batch.sequence_example.tolist()  # of each sequence; where prompts are repeated it has one of its own
    if len(last) != batch.examples:
        trees = list(range(batch.sequences))
    for tree, tokens in zip(trees, batch.columns["baseline"].long().tolist(), strict=True):
        if tokens:
            number = last[tree]
            end = layout.start[number] + layout.lengths[number]
            start = end - tokens
            joined = start > layout.start[number]
            before = start - 1 if joined else _place(layout, number, layout.first[number] - 1)
            yield Branch(number, start, end, before)


def _place(layout: Layout, branch: int, position: int) -> int | None:
    """Where in the row the token at a position is that a branch sees."""
    for number, limit in layout.reach[branch].items():
        offset = position - layout.first[number]
        if 0 <= offset < layout.lengths[number] and position < limit:
            return layout.start[number] + offset
    return None


def with_baselines(batch: Batch, branches: list[Branch]) -> Batch:
    """The same row with all tokens of the baselines scored, [N + M]: those of the batch, then theirs."""
    sources: list[int] = []
    targets: list[int] = []
    for branch in branches:
        targets += range(branch.start + (branch.before is None), branch.end)
        sources += [branch.before] if branch.before is not None else []
        sources += range(branch.start, branch.end - 1)
    scored = copy.copy(batch)
    scored.source = torch.cat([batch.source, batch.source.new_tensor(sources)])
    places = batch.source.new_tensor(targets)
    scored.place = torch.cat([batch.place, places])
    scored.target = torch.cat([batch.target, batch.input_ids[0, places]])
    return scored


def alone(batch: Batch, branches: list[Branch]) -> Batch:
    """The baselines and the prompts that they follow, without the rows' own answers: all their tokens are scored [M].

    A row without any stays whole, as each process has to run the model on something.
    """
    made, own = with_baselines(batch, branches), len(batch.target)
    made.source, made.place, made.target = made.source[own:], made.place[own:], made.target[own:]
    layout, kept = batch.layout, dict.fromkeys(range(len(batch.layout.start)), 0)
    for branch in branches:
        kept[branch.number] = layout.lengths[branch.number]
        for number, limit in layout.reach[branch.number].items():
            kept[number] = max(kept[number], min(layout.lengths[number], limit - layout.first[number]))
    if branches:
        keep_only(made, kept)
    return made


def leave_out(batch: Batch, branches: list[Branch]) -> None:
    """Take the baselines out of the row, in place: nothing is computed for them again, and nothing counts them.

    Their sequences keep their numbers, without tokens.
    """
    gone = {branch.number for branch in branches}
    keep_only(batch, {n: 0 if n in gone else length for n, length in enumerate(batch.layout.lengths)})
    if not batch.dummy:
        batch.counts["input_tokens"] = batch.tokens
        batch.counts["sequences"] = batch.sequences - len(branches)


def keep_only(batch: Batch, kept: dict[int, int]) -> None:
    """Cut each branch of the row to so many of its first tokens, in place; nothing that is scored may be among the
    others."""
    layout = batch.layout
    numbers = [number for number, length in kept.items() if length]
    tokens = [layout.start[number] + i for number in numbers for i in range(kept[number])]
    index, place = batch.source.new_tensor(tokens), torch.full_like(batch.input_ids[0], -1)
    place[index] = batch.source.new_tensor(range(len(tokens)))
    batch.input_ids, batch.position_ids = batch.input_ids[:, index], batch.position_ids[:, index]
    batch.source, batch.place = place[batch.source], place[batch.place]
    batch.reference = None if batch.reference is None else batch.reference[index]
    points = place[batch.score_source] >= 0
    batch.score_source, batch.score_sequence = place[batch.score_source[points]], batch.score_sequence[points]
    starts, new = [0], {old: new for new, old in enumerate(numbers)}
    for number in numbers:
        starts.append(starts[-1] + kept[number])
    reach = [{new[k]: limit for k, limit in layout.reach[number].items() if k in new} for number in numbers]
    first = [layout.first[number] for number in numbers]
    batch.layout = Layout.build(list(zip(starts, first, strict=False)), reach, len(tokens)).to(layout.device)
