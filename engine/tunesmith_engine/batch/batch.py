"""A micro-batch: examples laid end to end, with what attention and the loss have to know about their trees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tunesmith.errors import PluginError
from tunesmith_engine.batch.examples import Example, segment
from tunesmith_engine.batch.tree_mask import TreeMask


@dataclass
class Batch:
    """A micro-batch of T tokens, N scored tokens, M score points, S sequences, E examples.

    input_ids, position_ids: [1, T], what the model reads.
    tree_mask: which tokens see which.
    score_from: [N], the position whose prediction is scored.
    target_ids: [N], the token to predict there.
    target_at: [N], the position of that token.
    weight: [N], its loss weight.
    sequence: [N], the sequence it belongs to.
    point_at, point_sequence: [M], position and sequence of each point where a score head is read.
    sequence_example: [S], the example of each sequence.
    fields, origins: [E], other columns of the rows, and (dataset entry, row number) of each example.
    columns: tensors per example [E], per sequence [S] or per scored token [N, ...].
    counts: what terms may be divided by.
    dummy: True for a batch that only keeps this process in step with the others; its terms count as 0.
    reference: [T], log-probabilities of the reference where they were computed before the first step.
    """

    input_ids: Tensor
    position_ids: Tensor
    tree_mask: TreeMask
    score_from: Tensor
    target_ids: Tensor
    target_at: Tensor
    weight: Tensor
    sequence: Tensor
    point_at: Tensor
    point_sequence: Tensor
    sequence_example: Tensor
    examples: int
    fields: list[dict[str, Any]]
    origins: list[tuple[int, int]]
    columns: dict[str, Tensor] = field(default_factory=dict)
    inputs: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=dict)
    dummy: bool = False
    reference: Tensor | None = None

    def __post_init__(self) -> None:
        self.counts |= {"tokens": len(self.target_ids), "input_tokens": self.tokens}
        self.counts |= {"sequences": self.sequences, "examples": self.examples}

    @property
    def sequences(self) -> int:
        return len(self.sequence_example)

    @property
    def tokens(self) -> int:
        """Input tokens T."""
        return self.input_ids.shape[1]

    def sum_by_sequence(self, values: Tensor) -> Tensor:
        """Sum values [N] of scored tokens over each sequence, weighted: [S]."""
        out = values.new_zeros(self.sequences)
        return out.index_add(0, self.sequence, values * self.weight.to(values.dtype))

    def mean_by_sequence(self, values: Tensor) -> Tensor:
        """Weighted mean of values [N] over each sequence: [S]; 0 for a sequence without scored tokens."""
        return self.sum_by_sequence(values) / self.sum_by_sequence(torch.ones_like(values)).clamp_min(1e-12)

    def by_example(self, values: Tensor) -> list[Tensor]:
        """Split values [S] of sequences by example: E tensors, in the order of the examples' completions."""
        sizes = torch.bincount(self.sequence_example, minlength=self.examples).tolist()
        return list(values.split(sizes))

    def to(self, device: torch.device | str) -> Batch:
        """The same batch with its tensors on a device."""
        for name, value in vars(self).items():
            if isinstance(value, Tensor | TreeMask):
                setattr(self, name, value.to(device))
            elif name in ("columns", "inputs"):
                setattr(self, name, {k: v.to(device) for k, v in value.items()})
        return self


def collate(examples: Sequence[Example], *, share: bool = True, score_points: bool = False) -> Batch:
    """Lay examples end to end.

    With `share`, a prompt stands once and its completions beside it; without, each sequence repeats what it reads.
    With `score_points`, each sequence gets a score point at its last token, or where its column `score_at` is set.
    """
    return _Builder(score_points).build(list(examples), share)


class _Builder:
    """Gathers the flat arrays of a batch. A branch is a stretch of the row whose tokens see all before them in it."""

    def __init__(self, score_points: bool):
        self.score_points = score_points
        self.tokens: list[Any] = []
        self.positions: list[Any] = []
        self.branches: list[tuple[int, int]] = []  # start in the row, first position
        self.sees: list[dict[int, int]] = []  # branch -> {ancestor branch: positions of it that are visible}
        self.length = 0
        self.score_from: list[Any] = []
        self.target_ids: list[Any] = []
        self.target_at: list[Any] = []
        self.reference: list[Any] = []
        self.weight: list[Any] = []
        self.sequence: list[int] = []
        self.sequence_example: list[int] = []
        self.score: list[tuple[int, int]] = []
        self.columns: dict[str, list[Any]] = {}
        self.levels: dict[str, int] = {}

    def build(self, examples: list[Example], share: bool) -> Batch:
        for index, example in enumerate(examples):
            if share:
                self.lay(example, index, range(1, len(example.segments)))
            else:
                for which in range(1, len(example.segments)):
                    self.lay(_linear(example, which), index, [1])
            for name, value in example.columns.items():
                self.column(name, torch.tensor([float(value)]))
        tokens = np.concatenate(self.tokens or [np.zeros(0, np.int32)]).astype(np.int64)
        positions = np.concatenate(self.positions or [np.zeros(0)]).astype(np.int64)

        def flat(parts: list[Any], dtype: torch.dtype) -> Tensor:
            return torch.from_numpy(np.concatenate(parts)).to(dtype) if parts else torch.zeros(0, dtype=dtype)

        counts = [len(part) for part in self.target_ids]
        inputs = (
            {k: torch.cat([torch.as_tensor(e.inputs[k]) for e in examples]) for k in examples[0].inputs}
            if examples
            else {}
        )
        self.check_columns(len(examples), sum(counts))
        return Batch(
            input_ids=torch.from_numpy(tokens)[None],
            position_ids=torch.from_numpy(positions)[None],
            tree_mask=TreeMask.build(self.branches, self.sees, self.length),
            score_from=flat(self.score_from, torch.int64),
            target_ids=flat(self.target_ids, torch.int64),
            target_at=flat(self.target_at, torch.int64),
            weight=flat(self.weight, torch.float32),
            sequence=torch.repeat_interleave(
                torch.tensor(self.sequence, dtype=torch.int64), torch.tensor(counts, dtype=torch.int64)
            ),
            point_at=torch.tensor([s for s, _ in self.score], dtype=torch.int64),
            point_sequence=torch.tensor([s for _, s in self.score], dtype=torch.int64),
            sequence_example=torch.tensor(self.sequence_example, dtype=torch.int64),
            examples=len(examples),
            fields=[e.fields for e in examples],
            origins=[e.origin for e in examples],
            columns={name: torch.cat(parts) for name, parts in self.columns.items()},
            inputs=inputs,
            reference=flat(self.reference, torch.float32) if any(map(_is_known, examples)) else None,
        )

    def check_columns(self, examples: int, tokens: int) -> None:
        """Every column has to be there for every example, or every sequence, or every scored token."""
        for name, parts in self.columns.items():
            if (length := sum(map(len, parts))) not in (examples, len(self.sequence_example), tokens):
                raise PluginError(f"column {name!r} is on {length} of {len(self.sequence_example)} sequences")

    def column(self, name: str, value: Tensor) -> None:
        self.columns.setdefault(name, []).append(value)

    def lay(self, example: Example, index: int, sequences: Sequence[int] | range) -> None:
        """Append one tree to the row; `sequences` are the segments that are scored."""
        starts: list[int] = []
        branch_of: list[int] = []
        for number, s in enumerate(example.segments):
            parent = example.segments[s.parent]
            joins = number > 0 and s.fork == parent.end and starts[s.parent] + len(parent.tokens) == self.length
            if joins:
                branch_of.append(branch_of[s.parent])
            else:
                branch_of.append(len(self.branches))
                self.branches.append((self.length, s.fork))
                self.sees.append(self.visible(branch_of[s.parent], s.fork) if number else {})
            starts.append(self.length)
            self.tokens.append(s.tokens)
            self.positions.append(np.arange(s.fork, s.end))
            self.reference.append(s.columns.get("reference", np.full(len(s.tokens), np.nan, np.float32)))
            self.length += len(s.tokens)
            if number in sequences:
                self.score_sequence(example, number, starts, index)

    def visible(self, parent: int, fork: int) -> dict[int, int]:
        """What a new branch sees that leaves branch `parent` at position `fork`."""
        above = {branch: min(limit, fork) for branch, limit in self.sees[parent].items()}
        return above | {parent: fork}

    def score_sequence(self, example: Example, number: int, starts: list[int], index: int) -> None:
        s = example.segments[number]
        scored = np.flatnonzero(s.weights)
        source = scored + starts[number] - 1
        if len(scored) and scored[0] == 0:
            before = _place_before(example, number, starts)
            if before is None:  # the first token of a text: nothing predicts it
                scored, source = scored[1:], source[1:]
            else:
                source[0] = before
        which = len(self.sequence_example)
        self.sequence_example.append(index)
        self.score_from.append(source)
        self.target_ids.append(s.tokens[scored])
        self.target_at.append(scored + starts[number])
        self.weight.append(s.weights[scored])
        self.sequence.append(which)
        for name, value in s.columns.items():
            if name in ("score_at", "reference"):
                continue
            array = torch.as_tensor(np.asarray(value))
            self.column(name, array[torch.from_numpy(scored)] if array.ndim else array[None].float())
        if self.score_points:
            marks = s.columns.get("score_at")
            points = [starts[number] + int(p) for p in np.flatnonzero(marks)] if marks is not None else []
            path = example.path(number)  # of a sequence without tokens of its own: what it follows
            if not path:
                raise PluginError("a sequence without any token can't be scored")
            last = starts[path[-1][0]] + path[-1][2] - 1
            self.score += [(place, which) for place in points or [last]]


def _is_known(example: Example) -> bool:
    """Whether the reference's log-probabilities are with the example."""
    return any("reference" in s.columns for s in example.segments)


def _place_before(example: Example, number: int, starts: list[int]) -> int | None:
    """Row index of the token that a segment's first token follows, or None at the very start."""
    path = example.path(number)
    index = next((k for k, part in enumerate(path) if part[0] == number), 0)
    if index == 0:
        return None
    before, _, stop = path[index - 1]
    return starts[before] + stop - 1


def _linear(example: Example, number: int) -> Example:
    """The tree of one sequence alone: everything that it reads as the prompt, and itself."""
    s = example.segments[number]
    before = [int(t) for i, a, b in example.path(number) if i != number for t in example.segments[i].tokens[a:b]]
    alone = segment(s.tokens, s.weights, fork=len(before))
    alone.columns = s.columns
    return Example([segment(before), alone])
