"""Score the branches of a micro-batch that serve only the baseline, and remove them before training.

N scored tokens of the batch, M scored tokens of its baselines.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import NamedTuple

import torch

from tunesmith import Batch, TreeMask


class Branch(NamedTuple):
    """A baseline in the pack: its number among the branches, the place of its first token, its end, and the place of
    the token before it (None if there is none)."""

    number: int
    start: int
    end: int
    before: int | None


def branches_of(batch: Batch) -> list[Branch]:
    """Return the baselines of a batch: each is the last branch of its tree."""
    return list(_branches(batch, batch.tree_mask)) if "baseline" in batch.columns else []


def _branches(batch: Batch, tree_mask: TreeMask) -> Iterator[Branch]:
    roots = [number for number, seen in enumerate(tree_mask.sees) if not seen]
    last = [root - 1 for root in [*roots[1:], len(tree_mask.start)]]
    trees = batch.sequence_example.tolist()
    if len(last) != batch.examples:  # prompts are repeated, so each sequence is a tree
        trees = list(range(batch.sequences))
    for tree, tokens in zip(trees, batch.columns["baseline"].long().tolist(), strict=True):
        if tokens:
            number = last[tree]
            end = tree_mask.start[number] + tree_mask.lengths[number]
            start = end - tokens
            joined = start > tree_mask.start[number]
            before = start - 1 if joined else _place(tree_mask, number, tree_mask.first[number] - 1)
            yield Branch(number, start, end, before)


def _place(tree_mask: TreeMask, branch: int, position: int) -> int | None:
    """Return the place in the pack of the token that a branch sees at a position, or None."""
    for number, limit in tree_mask.sees[branch].items():
        offset = position - tree_mask.first[number]
        if 0 <= offset < tree_mask.lengths[number] and position < limit:
            return tree_mask.start[number] + offset
    return None


def with_baselines(batch: Batch, branches: list[Branch]) -> Batch:
    """Return a copy of the batch that also scores all tokens of the baselines: [N + M], its own tokens first."""
    sources: list[int] = []
    targets: list[int] = []
    for branch in branches:
        targets += range(branch.start + (branch.before is None), branch.end)
        sources += [branch.before] if branch.before is not None else []
        sources += range(branch.start, branch.end - 1)
    scored = copy.copy(batch)
    scored.score_from = torch.cat([batch.score_from, batch.score_from.new_tensor(sources)])
    places = batch.score_from.new_tensor(targets)
    scored.target_at = torch.cat([batch.target_at, places])
    scored.target_ids = torch.cat([batch.target_ids, batch.input_ids[0, places]])
    return scored


def alone(batch: Batch, branches: list[Branch]) -> Batch:
    """Return a batch of the baselines and their prompts, without the rows' own answers; all baselines are scored [M].

    A pack without baselines keeps its tokens, because every process has to run the model.
    """
    lone, own = with_baselines(batch, branches), len(batch.target_ids)
    lone.score_from, lone.target_at, lone.target_ids = (
        lone.score_from[own:],
        lone.target_at[own:],
        lone.target_ids[own:],
    )
    tree_mask, kept = batch.tree_mask, dict.fromkeys(range(len(batch.tree_mask.start)), 0)
    for branch in branches:
        kept[branch.number] = tree_mask.lengths[branch.number]
        for number, limit in tree_mask.sees[branch.number].items():
            kept[number] = max(kept[number], min(tree_mask.lengths[number], limit - tree_mask.first[number]))
    if branches:
        keep_only(lone, kept)
    return lone


def leave_out(batch: Batch, branches: list[Branch]) -> None:
    """Remove the baselines from the pack, in place, so that they are neither computed again nor counted.

    Their sequences keep their numbers, without tokens.
    """
    removed = {branch.number for branch in branches}
    keep_only(batch, {n: 0 if n in removed else length for n, length in enumerate(batch.tree_mask.lengths)})
    if not batch.dummy:
        batch.counts["input_tokens"] = batch.tokens
        batch.counts["sequences"] = batch.sequences - len(branches)


def keep_only(batch: Batch, kept: dict[int, int]) -> None:
    """Cut each branch of the pack to its first `kept[number]` tokens, in place. Scored tokens must not be cut."""
    tree_mask = batch.tree_mask
    numbers = [number for number, length in kept.items() if length]
    tokens = [tree_mask.start[number] + i for number in numbers for i in range(kept[number])]
    index, place = batch.score_from.new_tensor(tokens), torch.full_like(batch.input_ids[0], -1)
    place[index] = batch.score_from.new_tensor(range(len(tokens)))
    batch.input_ids, batch.position_ids = batch.input_ids[:, index], batch.position_ids[:, index]
    batch.score_from, batch.target_at = place[batch.score_from], place[batch.target_at]
    batch.reference = None if batch.reference is None else batch.reference[index]
    points = place[batch.point_at] >= 0
    batch.point_at, batch.point_sequence = place[batch.point_at[points]], batch.point_sequence[points]
    batch.last_at = place[batch.last_at]
    starts, new = [0], {old: new for new, old in enumerate(numbers)}
    for number in numbers:
        starts.append(starts[-1] + kept[number])
    sees = [{new[k]: limit for k, limit in tree_mask.sees[number].items() if k in new} for number in numbers]
    first = [tree_mask.first[number] for number in numbers]
    batch.tree_mask = TreeMask.build(list(zip(starts, first, strict=False)), sees, len(tokens)).to(tree_mask.device)
