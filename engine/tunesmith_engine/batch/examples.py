"""Examples: the tree of token segments that a prompt strategy builds from a row, and stores of many examples."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith_engine.batch.fields import FIELDS, Fields
from tunesmith_engine.batch.media import Media, check_inputs, from_arrays, to_arrays

CHUNK = 1 << 16
"""Examples whose arrays are read at a time."""
Tokens = NDArray[np.int32]
Weights = NDArray[np.float32]


@dataclass(slots=True)
class Segment:
    """A stretch of L tokens in an example's tree.

    tokens: [L]. weights: [L], the loss weight of each token, 0 for context. parent, fork: the segment continues segment
    `parent` after `fork` positions of that one's path, so its first token is at position `fork`. columns: a number for
    the sequence, or an array for its tokens, whose first dimension is L. notes: (end offset, why the tokens up to there
    are trained or masked), for `preprocess --debug`; not stored.
    """

    tokens: Tokens
    weights: Weights
    parent: int = 0
    fork: int = 0
    columns: dict[str, Any] = field(default_factory=dict)
    notes: list[tuple[int, str]] = field(default_factory=list)

    @property
    def end(self) -> int:
        """The position after the last token."""
        return self.fork + len(self.tokens)


def segment(
    tokens: Sequence[int] | Tokens,
    weights: Sequence[float] | Weights | float = 0.0,
    parent: int = 0,
    fork: int = 0,
    notes: list[tuple[int, str]] | None = None,
    **columns: Any,
) -> Segment:
    """Build a Segment from lists. A single weight applies to all tokens."""
    ids = np.asarray(tokens, np.int32)
    loss = (
        np.full(len(ids), weights, np.float32) if isinstance(weights, float | int) else np.asarray(weights, np.float32)
    )
    return Segment(ids, loss, parent, fork, columns, notes or [])


@dataclass(slots=True)
class Example:
    """A tree of segments: the prompt at index 0 (it may be empty), then the completions, parents before children.

    A text or a conversation is one completion, a preference pair two, a group of sampled answers G. Each completion is
    one sequence of the loss. columns: numbers for the example. fields: JSON values of the row that a method needs
    later, for example the reference answer that a reward compares with. inputs: additional inputs of the model.
    """

    segments: list[Segment]
    columns: dict[str, float] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, Any] = field(default_factory=dict)
    origin: tuple[int, int] = (-1, -1)
    """The number of its entry in the config and of its row in the entry, both counted from 0. The engine sets it."""
    media: list[Media] = field(default_factory=list)
    """Pictures, sounds and videos. No method supports them yet, so a row that has some is refused."""

    @classmethod
    def text(cls, tokens: Sequence[int] | Tokens, weights: Any = 1.0, **named: Any) -> Example:
        """Create an example of one sequence without a prompt. `weights` are the loss weights of its tokens."""
        return cls([segment([]), segment(tokens, weights, notes=named.pop("notes", None))], **named)

    @classmethod
    def branches(cls, prompt: Sequence[int], completions: Iterable[Sequence[int]], **named: Any) -> Example:
        """Create an example of a prompt and completions that each continue it, trained on all their tokens."""
        forks = [segment(tokens, 1.0, fork=len(prompt)) for tokens in completions]
        return cls([segment(prompt), *forks], **named)

    def with_completions(self, completions: Iterable[Sequence[int]]) -> Example:
        """Return an example with the same prompt, columns and fields, and other completions."""
        segments = Example.branches(self.prompt, completions).segments
        return Example(segments, dict(self.columns), dict(self.fields), dict(self.inputs), self.origin)

    @property
    def prompt(self) -> list[int]:
        """The tokens before the first trained one, from which a model generates."""
        tokens = list(self.segments[0].tokens)
        if len(self.segments) > 1:
            first = self.segments[1]
            scored = np.flatnonzero(first.weights)
            tokens = tokens[: first.fork] + list(first.tokens[: scored[0] if len(scored) else len(first.tokens)])
        return [int(token) for token in tokens]

    @property
    def width(self) -> int:
        """The number of tokens in all segments, which is the room that the example takes in a pack."""
        return sum(len(s.tokens) for s in self.segments)

    @property
    def longest(self) -> int:
        """The number of positions of the longest path: prompt plus one branch."""
        return max(s.end for s in self.segments)

    @property
    def trained_tokens(self) -> int:
        return sum(int(np.count_nonzero(s.weights)) for s in self.segments)

    def path(self, index: int) -> list[tuple[int, int, int]]:
        """Return (segment, start offset, end offset) of each part of sequence `index`, from the root to its end."""
        parts, limit = [], self.segments[index].end
        while True:
            s = self.segments[index]
            stop = max(0, min(len(s.tokens), limit - s.fork))
            parts.append((index, 0, stop))
            if index == 0:
                return [part for part in reversed(parts) if part[2]]
            limit = min(limit, s.fork)
            index = s.parent

    def path_tokens(self, index: int) -> list[int]:
        """Return the tokens of sequence `index`, from the root."""
        return [int(t) for i, a, b in self.path(index) for t in self.segments[i].tokens[a:b]]


class ExampleStore(Sequence[Example]):
    """Examples in flat arrays, in memory or memory-mapped from a folder of .npy files (never pickled).

    tokens [T] and weights [T] of all segments end to end; segment_start [S+1] into them, parent [S], fork [S];
    example_start [E+1] into the segments; origin [E, 2]; columns by level, with the prefixes example, sequence and
    token; fields as JSON lines; media as JSON in bytes, if an example has some.
    """

    def __init__(self, arrays: dict[str, NDArray[Any]], fields: Sequence[dict[str, Any]] | None = None):
        # Plain views of memory-mapped arrays: indexing a memmap would create a new memmap each time.
        self.arrays = {name: np.asarray(array) for name, array in arrays.items()}
        self.fields = fields
        self._segment, self._example = self.arrays["segment_start"], self.arrays["example_start"]
        self._of_examples, self._of_sequences = self._named("example."), self._named("sequence.")
        self._of_tokens, self._inputs = self._named("token."), self._named("input.")

    def _named(self, prefix: str) -> dict[str, NDArray[Any]]:
        """Return the arrays of a level, by name without the prefix."""
        return {name.removeprefix(prefix): a for name, a in self.arrays.items() if name.startswith(prefix)}

    def __len__(self) -> int:
        return len(self._example) - 1

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        first, last = int(self._example[index]), int(self._example[index + 1])
        segments = [self._read_segment(s) for s in range(first, last)]
        columns = {name: array[index] for name, array in self._of_examples.items()}
        inputs = {}
        for name, array in self._inputs.items():
            bounds = self.arrays[f"input_start.{name}"]
            inputs[name] = np.array(array[bounds[index] : bounds[index + 1]])
        entry, row = self.arrays["origin"][index].tolist()
        media = from_arrays(self.arrays, index)
        return Example(segments, columns, self.fields[index] if self.fields else {}, inputs, (entry, row), media)

    def last_tokens(self) -> set[int]:
        """Return the last tokens of all segments after a prompt; for an empty one, that of the prompt."""
        tokens: set[int] = set()
        for at in range(0, len(self), CHUNK):
            bounds = np.asarray(self._example[at : at + CHUNK + 1])
            starts = self._segment[bounds[0] : bounds[-1] + 1]
            empty = np.diff(starts) == 0
            after = np.ones(len(empty), np.bool_)
            after[bounds[:-1] - bounds[0]] = False  # the prompts
            tokens |= set(np.unique(self.arrays["tokens"][starts[1:][after & ~empty] - 1]).tolist())
            places = np.flatnonzero(after & empty) + bounds[0]
            for e in np.unique(np.searchsorted(bounds, places, "right") - 1).tolist():
                example = self[at + e]
                tokens |= {int(p[-1]) for i in range(1, len(example.segments)) if len(p := example.path_tokens(i))}
        return tokens

    def _read_segment(self, s: int) -> Segment:
        a, b = int(self._segment[s]), int(self._segment[s + 1])
        columns: dict[str, Any] = {name: array[s] for name, array in self._of_sequences.items()}
        columns |= {name: np.array(array[a:b]) for name, array in self._of_tokens.items()}
        return Segment(
            np.array(self.arrays["tokens"][a:b]),
            np.array(self.arrays["weights"][a:b]),
            int(self.arrays["parent"][s]),
            int(self.arrays["fork"][s]),
            columns,
        )

    def __iter__(self) -> Iterator[Example]:
        return (self[i] for i in range(len(self)))

    @property
    def widths(self) -> NDArray[np.int64]:
        """The room that each example takes in a pack [E]."""
        widths: NDArray[np.int64] = np.diff(self._segment[self._example]).astype(np.int64)
        return widths

    def compact_widths(self) -> NDArray[Any]:
        """Return the widths [E] in the smallest unsigned type that they fit in: 2 bytes each up to 65,535 tokens."""
        widths = np.zeros(len(self), np.uint16)
        for at in range(0, len(self), CHUNK):
            own = np.diff(self._segment[self._example[at : at + CHUNK + 1]])
            if widths.dtype == np.uint16 and int(own.max()) > 0xFFFF:
                widths = widths.astype(np.uint32)
            widths[at : at + CHUNK] = own
        return widths

    @classmethod
    def collect(cls, examples: Iterable[Example]) -> ExampleStore:
        """Gather examples. All need the same columns; a column that a segment does not have becomes NaN or zeros.

        Raises DataError if only some have an additional input of the model.
        """
        gathered = list(examples)
        check_inputs(gathered)
        segments = [s for e in gathered for s in e.segments]
        arrays: dict[str, NDArray[Any]] = {
            "tokens": np.concatenate([s.tokens for s in segments] or [np.zeros(0, np.int32)]),
            "weights": np.concatenate([s.weights for s in segments] or [np.zeros(0, np.float32)]),
            "segment_start": np.cumsum([0, *(len(s.tokens) for s in segments)], dtype=np.int64),
            "parent": np.array([s.parent for s in segments], np.int32),
            "fork": np.array([s.fork for s in segments], np.int32),
            "example_start": np.cumsum([0, *(len(e.segments) for e in gathered)], dtype=np.int64),
            "origin": np.array([e.origin for e in gathered], np.int64).reshape(-1, 2),
        }
        for name in sorted({name for e in gathered for name in e.columns}):
            arrays[f"example.{name}"] = np.array([e.columns[name] for e in gathered], np.float32)
        for name in sorted({name for s in segments for name in s.columns}):
            values = [s.columns.get(name) for s in segments]
            if any(np.ndim(v) for v in values if v is not None):
                first = np.asarray(next(v for v in values if v is not None and np.ndim(v)))
                parts = [
                    np.zeros((len(s.tokens), *first.shape[1:]), first.dtype) if v is None else v
                    for s, v in zip(segments, values, strict=True)
                ]
                arrays[f"token.{name}"] = np.concatenate(parts)
            else:
                arrays[f"sequence.{name}"] = np.array([np.nan if v is None else v for v in values], np.float32)
        for name in sorted({name for e in gathered for name in e.inputs}):
            parts = [np.asarray(e.inputs[name]) for e in gathered]
            arrays[f"input.{name}"] = np.concatenate(parts)
            arrays[f"input_start.{name}"] = np.cumsum([0, *map(len, parts)], dtype=np.int64)
        arrays |= to_arrays([e.media for e in gathered])
        return cls(arrays, [e.fields for e in gathered] if any(e.fields for e in gathered) else None)

    def take(self, indices: Iterable[int]) -> ExampleStore:
        """Return a store of the examples at these indices."""
        return ExampleStore.collect(self[int(i)] for i in indices)

    def content(self) -> str:
        """Return a sha256 of all examples."""
        digest = hashlib.sha256()
        for text in _as_json(self.fields):
            digest.update(text.encode())
        for name, array in sorted(self.arrays.items()):
            digest.update(f"{name} {array.dtype} {array.shape} ".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def save(self, folder: Path) -> None:
        for name, array in self.arrays.items():
            np.save(folder / f"{name}.npy", array, allow_pickle=False)
        if self.fields:
            with (folder / FIELDS).open("w", encoding="utf-8") as file:
                file.writelines(json.dumps(f) + "\n" for f in self.fields)

    @classmethod
    def load(cls, folder: Path) -> ExampleStore:
        arrays = {p.stem: np.load(p, mmap_mode="r", allow_pickle=False) for p in sorted(folder.glob("*.npy"))}
        lines = folder / FIELDS
        return cls(arrays, Fields(lines) if lines.exists() else None)


def _as_json(fields: Sequence[dict[str, Any]] | None) -> Iterator[str]:
    """Yield json.dumps(list(fields)) in pieces, of which no two are in memory."""
    if fields is None:
        yield "null"
        return
    yield "["
    for index, value in enumerate(fields):
        yield (", " if index else "") + json.dumps(value)
    yield "]"
