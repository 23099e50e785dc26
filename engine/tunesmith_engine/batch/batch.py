"""Lay the examples of a micro-batch end to end in one pack, with the indices that attention and the loss need."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tunesmith.errors import PluginError
from tunesmith_engine.batch import restrict
from tunesmith_engine.batch.examples import Example, segment
from tunesmith_engine.batch.media import Media, check_inputs
from tunesmith_engine.batch.restrict import Level, PackPath
from tunesmith_engine.batch.stretch import Stretch
from tunesmith_engine.batch.tree_mask import TreeMask


@dataclass
class Batch:
    """A micro-batch of T tokens, N scored tokens, M score points, S sequences, E examples.

    input_ids, position_ids: [1, T], the input of the model.
    tree_mask: the mask of which tokens see which.
    score_from: [N], the place in the pack whose prediction is scored.
    target_ids: [N], the token to predict there.
    target_at: [N], the place of that token.
    weight: [N], its loss weight.
    sequence: [N], the sequence it belongs to.
    last_at: [S], the place of the last token of each sequence; -1 for one that is not in the pack.
    point_at, point_sequence: [M], place and sequence of each token whose column `score_at` is not 0.
    sequence_example: [S], the example of each sequence.
    fields, origins: [E], other columns of the rows, and (dataset entry, row) of each example, both counted from 0.
    columns: tensors per example [E], per sequence [S] or per scored token [N, ...].
    inputs: additional inputs of the model, concatenated over the examples.
    media: [E], the media of each example. No method supports them yet, so the policy refuses a batch that has some.
    counts: the numbers that terms may be divided by.
    dummy: True for a batch that only keeps this process in sync with the others. Its terms count as 0.
    reference: [T], log-probabilities of the reference, if they were computed before the first step.
    empty_sequences: the number of sequences without any token, which heads at "last" can't read.
    paths: [S], the places in the pack of each sequence's tokens.
    levels: the level of the columns that examples have: "example", "sequence" or "token" (per scored token).
    stretch: if several processes compute this pack, which part of it the batch is: see `cut`. Hooks never see a part.
    """

    input_ids: Tensor
    position_ids: Tensor
    tree_mask: TreeMask
    score_from: Tensor
    target_ids: Tensor
    target_at: Tensor
    weight: Tensor
    sequence: Tensor
    last_at: Tensor
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
    empty_sequences: int = 0
    paths: list[PackPath] = field(default_factory=list)
    levels: dict[str, Level] = field(default_factory=dict)
    media: list[list[Media]] = field(default_factory=list)
    stretch: Stretch | None = None

    def __post_init__(self) -> None:
        self.counts |= {"tokens": len(self.target_ids), "input_tokens": self.tokens}
        self.counts |= {"sequences": self.sequences, "examples": self.examples}

    @property
    def sequences(self) -> int:
        return len(self.sequence_example)

    @property
    def tokens(self) -> int:
        """The number of input tokens T."""
        return self.input_ids.shape[1]

    def sum_by_sequence(self, values: Tensor) -> Tensor:
        """Return the weighted sum [S] of values [N] of scored tokens over each sequence."""
        out = values.new_zeros(self.sequences)
        return out.index_add(0, self.sequence, values * self.weight.to(values.dtype))

    def mean_by_sequence(self, values: Tensor) -> Tensor:
        """Return the weighted mean [S] of values [N] over each sequence; 0 for a sequence without scored tokens."""
        return self.sum_by_sequence(values) / self.sum_by_sequence(torch.ones_like(values)).clamp_min(1e-12)

    def by_example(self, values: Tensor) -> list[Tensor]:
        """Split values [S] of sequences by example: E tensors, in the order of the examples' completions."""
        sizes = torch.bincount(self.sequence_example, minlength=self.examples).tolist()
        return list(values.split(sizes))

    def restrict(self, sequences: Tensor | Iterable[int]) -> Batch:
        """Return a batch of some of the sequences, and of the examples and tokens that they consist of.

        sequences: their numbers, or a mask [S]. Sequences and examples are numbered anew, in their order. Counts that a
        plugin added stay as they are. The pack keeps all its tokens if there is no sequence, because every process has
        to run the model, and if the model has additional inputs. Raises PluginError for a sequence that the batch does
        not have, and for a column whose level its length does not show.
        """
        return restrict.restrict(self, sequences)

    def restrict_(self, sequences: Tensor | Iterable[int]) -> None:
        """Restrict the batch in place, as a method may do in prepare_step."""
        vars(self).update(vars(self.restrict(sequences)))

    def score_all(self, sequences: Tensor | Iterable[int]) -> Batch:
        """Return a batch that also scores the tokens of weight 0 of these sequences, after its own: [N + M].

        Columns of scored tokens are 0 there. Nothing predicts the first token of a text, so it is not scored. Raises
        what `restrict` raises.
        """
        return restrict.score_all(self, sequences)

    def to(self, device: torch.device | str) -> Batch:
        """Move the tensors of the batch to a device, in place, and return it."""
        for name, value in vars(self).items():
            if isinstance(value, Tensor | TreeMask):
                setattr(self, name, value.to(device))
            elif name in ("columns", "inputs"):
                setattr(self, name, {k: v.to(device) for k, v in value.items()})
        return self


def collate(examples: Sequence[Example], *, share: bool = True) -> Batch:
    """Lay examples end to end in one pack.

    With `share`, a prompt is there once, followed by its completions; otherwise each sequence repeats the tokens that
    it continues. Raises PluginError for a column that is missing in some examples, and what `check_inputs` raises.
    """
    check_inputs(examples, share)
    return _Builder().build(list(examples), share)


class _Builder:
    """A builder of the flat arrays of a batch. In a branch, a stretch of the pack, each token sees those before it."""

    def __init__(self) -> None:
        self.tokens: list[Any] = []
        self.positions: list[Any] = []
        self.branches: list[tuple[int, int]] = []  # place in the pack, first position
        self.sees: list[dict[int, int]] = []  # branch -> {ancestor branch: position below which it is visible}
        self.length = 0
        self.score_from: list[Any] = []
        self.target_ids: list[Any] = []
        self.target_at: list[Any] = []
        self.reference: list[Any] = []
        self.weight: list[Any] = []
        self.sequence: list[int] = []
        self.sequence_example: list[int] = []
        self.last: list[int] = []
        self.points: list[tuple[int, int]] = []
        self.columns: dict[str, list[Any]] = {}
        self.levels: dict[str, Level] = {}
        self.paths: list[PackPath] = []

    def build(self, examples: list[Example], share: bool) -> Batch:
        for index, example in enumerate(examples):
            if share:
                self.lay(example, index, range(1, len(example.segments)))
            else:
                for number in range(1, len(example.segments)):
                    self.lay(_linear(example, number), index, [1])
            for name, value in example.columns.items():
                self.column(name, torch.tensor([float(value)]), "example")
        tokens = np.concatenate(self.tokens or [np.zeros(0, np.int32)]).astype(np.int64)
        positions = np.concatenate(self.positions or [np.zeros(0)]).astype(np.int64)

        def flat(parts: list[Any], dtype: torch.dtype) -> Tensor:
            return torch.from_numpy(np.concatenate(parts)).to(dtype) if parts else torch.zeros(0, dtype=dtype)

        counts = [len(part) for part in self.target_ids]
        names = examples[0].inputs if examples else ()
        inputs = {name: torch.cat([torch.as_tensor(e.inputs[name]) for e in examples]) for name in names}
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
            last_at=torch.tensor(self.last, dtype=torch.int64),
            point_at=torch.tensor([s for s, _ in self.points], dtype=torch.int64),
            point_sequence=torch.tensor([s for _, s in self.points], dtype=torch.int64),
            sequence_example=torch.tensor(self.sequence_example, dtype=torch.int64),
            examples=len(examples),
            fields=[e.fields for e in examples],
            origins=[e.origin for e in examples],
            columns={name: torch.cat(parts) for name, parts in self.columns.items()},
            inputs=inputs,
            reference=flat(self.reference, torch.float32) if any(map(_has_reference, examples)) else None,
            empty_sequences=self.last.count(-1),
            paths=self.paths,
            levels=self.levels,
            media=[e.media for e in examples],
        )

    def check_columns(self, examples: int, tokens: int) -> None:
        """Raise PluginError for a column without a value for each example, each sequence, or each scored token."""
        sequences = len(self.sequence_example)
        for name, parts in self.columns.items():
            if (length := sum(map(len, parts))) not in (examples, sequences, tokens):
                sizes = f"{examples} examples, {sequences} sequences and {tokens} scored tokens"
                raise PluginError(f"column {name!r} has {length} values for {sizes}")

    def column(self, name: str, value: Tensor, level: Level) -> None:
        self.columns.setdefault(name, []).append(value)
        self.levels[name] = level

    def lay(self, example: Example, index: int, sequences: Sequence[int] | range) -> None:
        """Append the tree of an example to the pack. `sequences` are the segments that are scored."""
        starts: list[int] = []
        branch_of: list[int] = []
        for number, s in enumerate(example.segments):
            parent = example.segments[s.parent]
            # A segment that begins where its parent ends in the pack joins its branch. A text, or a prompt with its
            # first completion, is thus one branch: plain causal attention, without a mask.
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
        """Return what a new branch sees that leaves branch `parent` at position `fork`."""
        above = {branch: min(limit, fork) for branch, limit in self.sees[parent].items()}
        return above | {parent: fork}

    def score_sequence(self, example: Example, number: int, starts: list[int], index: int) -> None:
        s = example.segments[number]
        scored = np.flatnonzero(s.weights)
        source = scored + starts[number] - 1
        before = [(starts[k], starts[k] + stop) for k, _, stop in example.path(number) if k != number]
        places = PackPath(before, starts[number], self.length)
        self.paths.append(places)
        # The first token of a completion is predicted at the end of its prompt, which may be far away in the pack.
        # Nothing predicts the first token of a text.
        if len(scored) and scored[0] == 0:
            if places.place_before is None:
                scored, source = scored[1:], source[1:]
            else:
                source[0] = places.place_before
        sequence = len(self.sequence_example)
        self.sequence_example.append(index)
        self.score_from.append(source)
        self.target_ids.append(s.tokens[scored])
        self.target_at.append(scored + starts[number])
        self.weight.append(s.weights[scored])
        self.sequence.append(sequence)
        for name, value in s.columns.items():
            if name in ("score_at", "reference"):
                continue
            array = torch.as_tensor(np.asarray(value))
            if array.ndim:
                self.column(name, array[torch.from_numpy(scored)], "token")
            else:
                self.column(name, array[None].float(), "sequence")
        path = example.path(number)  # for a sequence without tokens, it ends with what the sequence follows
        self.last.append(starts[path[-1][0]] + path[-1][2] - 1 if path else -1)
        self.points += [(starts[number] + int(p), sequence) for p in np.flatnonzero(s.columns.get("score_at", ()))]


def _has_reference(example: Example) -> bool:
    """Return True if the example has precomputed log-probabilities of the reference."""
    return any("reference" in s.columns for s in example.segments)


def _linear(example: Example, number: int) -> Example:
    """Return a tree of one sequence: everything that it continues as the prompt, and its segment."""
    s = example.segments[number]
    before = [int(t) for i, a, b in example.path(number) if i != number for t in example.segments[i].tokens[a:b]]
    completion = segment(s.tokens, s.weights, fork=len(before))
    completion.columns = s.columns
    return Example([segment(before), completion])
