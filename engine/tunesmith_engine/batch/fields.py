"""The fields of stored examples: JSON values of their rows that a method needs later."""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

FIELDS = "fields.jsonl"
"""Name of the file, with a line for each example."""
_CHUNK = 1 << 22


class Fields(Sequence[dict[str, Any]]):
    """The fields of each example, read from a file when they are needed. In memory is where its lines begin."""

    def __init__(self, path: Path):
        with path.open("rb") as file:
            self._bytes: Any = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if path.stat().st_size else b""
            starts, read = [np.zeros(1, np.int64)], 0
            while chunk := file.read(_CHUNK):
                starts.append(np.flatnonzero(np.frombuffer(chunk, np.uint8) == ord("\n")) + (read + 1))
                read += len(chunk)
        self._starts = np.concatenate(starts)

    def __len__(self) -> int:
        return len(self._starts) - 1

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        return json.loads(self._bytes[int(self._starts[index]) : int(self._starts[index + 1])])

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[index] for index in range(len(self)))
