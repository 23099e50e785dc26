"""Restrict a batch to some of its sequences, and cut its pack to the tokens that they consist of.

S sequences, E examples, N scored tokens and T tokens of the batch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tunesmith.errors import PluginError

if TYPE_CHECKING:
    from tunesmith_engine.batch.batch import Batch

Level = Literal["example", "sequence", "token"]
HELP = "call restrict before you add the column"


class PackPath(NamedTuple):
    """The places of a sequence in the pack: `start` to `end` (exclusive) of its own segment, and `before`, the
    stretches that it continues, from the root."""

    before: list[tuple[int, int]]
    start: int
    end: int

    @property
    def place_before(self) -> int | None:
        """The place of the token that predicts the first one of the segment, or None if there is none."""
        return self.before[-1][1] - 1 if self.before else None


def restrict(batch: Batch, sequences: Tensor | Iterable[int]) -> Batch:
    """Return a batch of some of the sequences; see `Batch.restrict`."""
    # All masks derive from tensors of the batch. In the memory estimate of `plan`, tensors that are created from
    # nothing have no content.
    kept = _mask(batch, sequences)
    examples = kept.new_zeros(batch.examples).index_fill(0, batch.sequence_example[kept], True)
    scored, points = kept[batch.sequence], kept[batch.point_sequence]
    masks: dict[Level, Tensor] = {"example": examples, "sequence": kept, "token": scored}
    numbers, number_of_example = kept.cumsum(0) - 1, examples.cumsum(0) - 1
    chosen = examples.tolist()
    parts: dict[str, Any] = {
        "score_from": batch.score_from[scored],
        "target_ids": batch.target_ids[scored],
        "target_at": batch.target_at[scored],
        "weight": batch.weight[scored],
        "sequence": numbers[batch.sequence[scored]],
        "last_at": batch.last_at[kept],
        "point_at": batch.point_at[points],
        "point_sequence": numbers[batch.point_sequence[points]],
        "sequence_example": number_of_example[batch.sequence_example[kept]],
        "examples": sum(chosen),
        "fields": [value for value, stays in zip(batch.fields, chosen, strict=True) if stays],
        "origins": [value for value, stays in zip(batch.origins, chosen, strict=True) if stays],
        "media": [value for value, stays in zip(batch.media, chosen, strict=True) if stays],
        "columns": {name: value[masks[_level_of(batch, name, masks)]] for name, value in batch.columns.items()},
        "paths": [path for path, stays in zip(batch.paths, kept.tolist(), strict=True) if stays],
    }
    parts["empty_sequences"] = sum(path.start == path.end and not path.before for path in parts["paths"])
    if parts["paths"] and not batch.inputs:
        parts |= _cut(batch, parts)
    return _replaced(batch, **parts)


def score_all(batch: Batch, sequences: Tensor | Iterable[int]) -> Batch:
    """Return a batch that also scores the tokens of weight 0 of some sequences; see `Batch.score_all`."""
    scored = set(batch.target_at.tolist())
    rows: list[tuple[int, int, int]] = []  # source, target and sequence of each additional scored token
    kept = _mask(batch, sequences)
    for number in kept.nonzero()[:, 0].tolist():
        path = batch.paths[number]
        for place in range(path.start, path.end):
            source = place - 1 if place > path.start else path.place_before
            if place not in scored and source is not None:
                rows.append((source, place, number))
    source, target, sequence = batch.score_from.new_tensor(rows).view(-1, 3).unbind(1)
    longer: dict[Level, Tensor] = {
        "example": kept.new_zeros(batch.examples),
        "sequence": torch.zeros_like(kept),
        "token": kept.new_ones(len(batch.target_ids)),
    }
    columns = dict(batch.columns)
    for name, value in batch.columns.items():
        if _level_of(batch, name, longer) == "token":
            columns[name] = torch.cat([value, value.new_zeros(len(rows), *value.shape[1:])])
    return _replaced(
        batch,
        score_from=torch.cat([batch.score_from, source]),
        target_ids=torch.cat([batch.target_ids, batch.input_ids[0, target]]),
        target_at=torch.cat([batch.target_at, target]),
        weight=torch.cat([batch.weight, batch.weight.new_zeros(len(rows))]),
        sequence=torch.cat([batch.sequence, sequence]),
        columns=columns,
    )


def _mask(batch: Batch, sequences: Tensor | Iterable[int]) -> Tensor:
    """Return the mask [S] of sequences that are given by number or as a mask."""
    if isinstance(sequences, Tensor) and sequences.dtype == torch.bool:
        if sequences.shape != (batch.sequences,):
            raise PluginError(f"a mask of shape {list(sequences.shape)} for a batch of {batch.sequences} sequences")
        return sequences
    numbers = [int(number) for number in sequences]
    if outside := [number for number in numbers if not 0 <= number < batch.sequences]:
        raise PluginError(f"sequence {outside[0]} of a batch of {batch.sequences} sequences, numbered from 0")
    mask = torch.zeros_like(batch.sequence_example, dtype=torch.bool)
    return mask.index_fill(0, batch.sequence_example.new_tensor(numbers), True)


def _level_of(batch: Batch, name: str, masks: dict[Level, Tensor]) -> Level:
    """Return the level of a column, whose values a mask of that level is for.

    A column that a plugin added shows its level by its length. Several levels may have that length if their masks are
    equal: with one sequence per example, numbers of examples are also those of sequences.
    """
    fitting = [level for level, mask in masks.items() if len(mask) == len(batch.columns[name])]
    if batch.levels.get(name) in fitting:
        return batch.levels[name]
    if not fitting:
        sizes = ", ".join(f"{len(mask)} of {level}s" for level, mask in masks.items())
        raise PluginError(f"column {name!r} has {len(batch.columns[name])} values, expected {sizes}")
    if not all(torch.equal(masks[level], masks[fitting[0]]) for level in fitting):
        message = f"column {name!r} may have a value per {' or per '.join(fitting)}: the batch has equally many"
        raise PluginError(message, help=f'write batch.levels["{name}"] = "{fitting[-1]}" where you add the column')
    return fitting[0]


def _cut(batch: Batch, parts: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a batch whose pack has only the tokens of the paths in `parts`; none if these are all."""
    needed = np.zeros(batch.tokens, bool)
    for path in parts["paths"]:
        for start, end in [*path.before, (path.start, path.end)]:
            needed[start:end] = True
    if needed.all():
        return {}
    places = np.concatenate([[0], np.cumsum(needed)])  # [T + 1], the tokens before each place that stay
    tokens, new = (batch.score_from.new_tensor(array.tolist()) for array in (np.flatnonzero(needed), places))
    mask = batch.tree_mask
    kept = [int(places[a + n] - places[a]) for a, n in zip(mask.start, mask.lengths, strict=True)]

    def moved(path: PackPath) -> PackPath:
        before = [(int(places[start]), int(places[end])) for start, end in path.before]
        return PackPath(before, int(places[path.start]), int(places[path.end]))

    return {
        "input_ids": batch.input_ids[..., tokens],
        "position_ids": batch.position_ids[..., tokens],
        "tree_mask": mask.cut(kept),
        "reference": None if batch.reference is None else batch.reference[tokens],
        "score_from": new[parts["score_from"]],
        "target_at": new[parts["target_at"]],
        "last_at": torch.where(parts["last_at"] < 0, -1, new[parts["last_at"].clamp_min(0)]),
        "point_at": new[parts["point_at"]],
        "paths": [moved(path) for path in parts["paths"]],
    }


def _replaced(batch: Batch, **changes: Any) -> Batch:
    """Return a copy of the batch with changes. Its own counts are those of its new content, or 0 for a dummy."""
    copy = replace(batch, counts=dict(batch.counts), levels=dict(batch.levels), **changes)
    if batch.dummy:
        copy.counts = dict.fromkeys(copy.counts, 0.0)
    return copy
