"""Examples: the tree of token segments that a prompt strategy makes of a row, and many of them in flat arrays."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.int32]
Weights = NDArray[np.float32]


@dataclass(slots=True)
class Segment:
    """A run of tokens in an example's tree.

    tokens [L]; weights [L], the loss weight of each token, 0 for context. It continues segment `parent` after the
    parent's path has reached `fork` positions, so its first token stands at position `fork`. columns: a number for
    the sequence, or an array whose first dimension is L for its tokens. notes: (end offset, why its tokens are
    trained or masked), for people; not stored.
    """

    tokens: Tokens
    weights: Weights
    parent: int = 0
    fork: int = 0
    columns: dict[str, Any] = field(default_factory=dict)
    notes: list[tuple[int, str]] = field(default_factory=list)

    @property
    def end(self) -> int:
        """Position after the last token."""
        return self.fork + len(self.tokens)


def segment(
    tokens: Sequence[int] | Tokens,
    weights: Sequence[float] | Weights | float = 0.0,
    parent: int = 0,
    fork: int = 0,
    notes: list[tuple[int, str]] | None = None,
    **columns: Any,
) -> Segment:
    """Make a Segment from lists; one weight may stand for all tokens."""
    ids = np.asarray(tokens, np.int32)
    loss = (
        np.full(len(ids), weights, np.float32) if isinstance(weights, float | int) else np.asarray(weights, np.float32)
    )
    return Segment(ids, loss, parent, fork, columns, notes or [])


@dataclass(slots=True)
class Example:
    """A tree of segments: the prompt at index 0 (it may be empty), then the completions; parents before children.

    A text or conversation is one completion, a preference pair two, a group of sampled answers G. Each completion is
    one sequence of the loss. columns: numbers for the whole example. fields: values of the row that a method needs
    later (JSON), for example the reference answer that a reward compares with. inputs: extra inputs of the model.
    """

    segments: list[Segment]
    columns: dict[str, float] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, Any] = field(default_factory=dict)
    origin: tuple[int, int] = (-1, -1)
    """Number of its entry in the config, and of its row in that; the engine sets it."""

    @classmethod
    def text(cls, tokens: Sequence[int] | Tokens, weights: Any = 1.0, **named: Any) -> Example:
        """An example of one sequence without a prompt, each token with its loss weight."""
        return cls([segment([]), segment(tokens, weights, notes=named.pop("notes", None))], **named)

    @classmethod
    def branches(cls, prompt: Sequence[int], completions: Iterable[Sequence[int]], **named: Any) -> Example:
        """A prompt and completions that each continue it, trained on all their tokens."""
        forks = [segment(tokens, 1.0, fork=len(prompt)) for tokens in completions]
        return cls([segment(prompt), *forks], **named)

    def with_completions(self, completions: Iterable[Sequence[int]]) -> Example:
        """The same prompt, columns and fields with other completions."""
        made = Example.branches(self.prompt, completions)
        return Example(made.segments, dict(self.columns), dict(self.fields), dict(self.inputs), self.origin)

    @property
    def prompt(self) -> list[int]:
        """The tokens before the first trained one: what a model is given to generate from."""
        tokens = list(self.segments[0].tokens)
        if len(self.segments) > 1:
            first = self.segments[1]
            scored = np.flatnonzero(first.weights)
            tokens = tokens[: first.fork] + list(first.tokens[: scored[0] if len(scored) else len(first.tokens)])
        return [int(token) for token in tokens]

    @property
    def width(self) -> int:
        """Tokens in all segments: the room that it takes in a row."""
        return sum(len(s.tokens) for s in self.segments)

    @property
    def longest(self) -> int:
        """Positions of its longest path: prompt plus one branch."""
        return max(s.end for s in self.segments)

    @property
    def trained_tokens(self) -> int:
        return sum(int(np.count_nonzero(s.weights)) for s in self.segments)

    def path(self, index: int) -> list[tuple[int, int, int]]:
        """The segments that sequence `index` reads, from the root: (segment, first offset, end offset) of each."""
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
        """The tokens of sequence `index` as one list, from the root."""
        return [int(t) for i, a, b in self.path(index) for t in self.segments[i].tokens[a:b]]


class ExampleStore(Sequence[Example]):
    """Many examples in flat arrays, in memory or memory-mapped from a folder of .npy files (never pickled).

    tokens [T] and weights [T] of all segments end to end; segment_start [S+1], parent [S], fork [S]; example_start
    [E+1] into segments; origin [E, 2]; columns by level; fields as JSON lines.
    """

    def __init__(self, arrays: dict[str, NDArray[Any]], fields: list[dict[str, Any]] | None = None):
        # plain views of what may be memory-mapped: indexing a memmap makes a new one each time
        self.arrays = {name: np.asarray(array) for name, array in arrays.items()}
        self.fields = fields
        self._segment, self._example = self.arrays["segment_start"], self.arrays["example_start"]
        self._of_examples, self._of_sequences = self._named("example."), self._named("sequence.")
        self._of_tokens, self._inputs = self._named("token."), self._named("input.")

    def _named(self, prefix: str) -> dict[str, NDArray[Any]]:
        """The arrays of a level, by what follows its prefix."""
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
        return Example(segments, columns, self.fields[index] if self.fields else {}, inputs, (entry, row))

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
        """Room that each example takes in a row [E]."""
        widths: NDArray[np.int64] = np.diff(self._segment[self._example]).astype(np.int64)
        return widths

    @classmethod
    def collect(cls, examples: Iterable[Example]) -> ExampleStore:
        """Gather examples; a column has to be on all of them, with one shape."""
        kept = list(examples)
        segments = [s for e in kept for s in e.segments]
        arrays: dict[str, NDArray[Any]] = {
            "tokens": np.concatenate([s.tokens for s in segments] or [np.zeros(0, np.int32)]),
            "weights": np.concatenate([s.weights for s in segments] or [np.zeros(0, np.float32)]),
            "segment_start": np.cumsum([0, *(len(s.tokens) for s in segments)], dtype=np.int64),
            "parent": np.array([s.parent for s in segments], np.int32),
            "fork": np.array([s.fork for s in segments], np.int32),
            "example_start": np.cumsum([0, *(len(e.segments) for e in kept)], dtype=np.int64),
            "origin": np.array([e.origin for e in kept], np.int64).reshape(-1, 2),
        }
        for name in sorted({name for e in kept for name in e.columns}):
            arrays[f"example.{name}"] = np.array([e.columns[name] for e in kept], np.float32)
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
        for name in sorted({name for e in kept for name in e.inputs}):
            parts = [np.asarray(e.inputs[name]) for e in kept]
            arrays[f"input.{name}"] = np.concatenate(parts)
            arrays[f"input_start.{name}"] = np.cumsum([0, *map(len, parts)], dtype=np.int64)
        return cls(arrays, [e.fields for e in kept] if any(e.fields for e in kept) else None)

    def take(self, indices: Iterable[int]) -> ExampleStore:
        """The examples at these indices, as a store of their own."""
        return ExampleStore.collect(self[int(i)] for i in indices)

    def content(self) -> str:
        """sha256 of all examples."""
        digest = hashlib.sha256(json.dumps(self.fields).encode())
        for name, array in sorted(self.arrays.items()):
            digest.update(f"{name} {array.dtype} {array.shape} ".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def save(self, folder: Path) -> None:
        for name, array in self.arrays.items():
            np.save(folder / f"{name}.npy", array, allow_pickle=False)
        if self.fields:
            (folder / "fields.jsonl").write_text("".join(json.dumps(f) + "\n" for f in self.fields), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> ExampleStore:
        arrays = {p.stem: np.load(p, mmap_mode="r", allow_pickle=False) for p in sorted(folder.glob("*.npy"))}
        lines = folder / "fields.jsonl"
        fields = [json.loads(line) for line in lines.read_text("utf-8").splitlines()] if lines.exists() else None
        return cls(arrays, fields)
