"""Write the examples of shards as the arrays of prepared data, one shard at a time."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.errors import PluginError
from tunesmith_engine.batch.fields import FIELDS
from tunesmith_engine.data import shards
from tunesmith_engine.data.shards import Meta

STARTS = ("segment_start", "example_start")


class Layout:
    """Names, types and shapes of the arrays of all shards together."""

    def __init__(self) -> None:
        self.arrays: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {}
        self.fields = False

    def add(self, meta: Meta) -> None:
        """Add the arrays of a part. Raises PluginError if their shapes are not those of other parts."""
        self.fields |= meta.fields
        if meta.names is None:
            return  # no examples, so its types mean nothing
        for name, (kind, shape) in meta.layout.items():
            dtype, rest = np.dtype(kind), tuple(shape[1:])
            if name in self.arrays:
                if self.arrays[name][1] != rest:
                    raise _unlike(name)
                dtype = np.result_type(self.arrays[name][0], dtype)
            self.arrays[name] = (dtype, rest)
        for name in self.arrays:
            level, _, column = name.partition(".")
            if level == "sequence" and f"token.{column}" in self.arrays:
                raise _unlike(name)


def _unlike(name: str) -> PluginError:
    message = f"the values of {name.partition('.')[2] or name!r} have different shapes in different rows"
    return PluginError(message, help="give a column one number per sequence, or one value per token, in all rows")


class StoreWriter:
    """A store that is written part by part. Its files are those of ExampleStore.save."""

    def __init__(self, folder: Path, layout: Layout):
        folder.mkdir(parents=True)
        self.folder, self.layout, self.examples = folder, layout, 0
        self.used: set[str] = set()
        self.files = {name: _ArrayFile(folder / f"{name}.npy", *kind) for name, kind in layout.arrays.items()}
        for name, file in self.files.items():
            if _is_start(name):
                file.append(np.zeros(1, np.int64))
        self.fields = (folder / FIELDS).open("wb") if layout.fields else None
        self.has_fields = False

    def append(self, arrays: dict[str, NDArray[Any]], keep: NDArray[np.bool_] | None = None) -> None:
        """Append the examples of a part, or those of them that are kept [E]."""
        arrays = dict(arrays)
        lines = arrays.pop(shards.FIELDS).tobytes().splitlines(keepends=True)
        if keep is not None and not keep.all():
            if not keep.any():
                return
            lines = [line for line, kept in zip(lines, keep.tolist(), strict=False) if kept]
            arrays = chosen(arrays, keep)
        examples, segments, tokens = (len(arrays[name]) for name in ("origin", "parent", "tokens"))
        if self.fields is not None:
            self.has_fields |= any(line != b"{}\n" for line in lines)
            self.fields.writelines(lines or [b"{}\n"] * examples)
        self.used |= arrays.keys()
        self.examples += examples
        for name, file in self.files.items():
            if name not in arrays:
                # A column that no segment of the part has: NaN or zeros, as for single segments without it.
                numbers = name.startswith("sequence.")
                file.append(np.full(segments, np.nan, np.float32) if numbers else file.zeros(tokens))
            elif _is_start(name):
                file.append(arrays[name][1:] + file.last)
                file.last += int(arrays[name][-1])
            else:
                file.append(arrays[name])

    def close(self) -> None:
        for name, file in self.files.items():
            file.close()
            if name not in self.used:  # only examples of another store have it
                file.path.unlink()
        if self.fields is not None:
            self.fields.close()
            if not self.has_fields:
                (self.folder / FIELDS).unlink()

    def delete(self) -> None:
        shutil.rmtree(self.folder)


def chosen(arrays: dict[str, NDArray[Any]], keep: NDArray[np.bool_]) -> dict[str, NDArray[Any]]:
    """Return the arrays of some of the examples [E]."""
    in_segments = np.diff(arrays["example_start"])
    segments = np.repeat(keep, in_segments)
    lengths = np.diff(arrays["segment_start"])
    tokens = np.repeat(segments, lengths)
    masks = {"origin": keep, "example": keep, "parent": segments, "fork": segments, "sequence": segments}
    masks |= {"tokens": tokens, "weights": tokens, "token": tokens}
    result = {"example_start": _starts(in_segments[keep]), "segment_start": _starts(lengths[segments])}
    for name, array in arrays.items():
        level, _, column = name.partition(".")
        if level == "input_start":
            result[name] = _starts(np.diff(array)[keep])
        elif level == "input":
            result[name] = array[np.repeat(keep, np.diff(arrays[f"input_start.{column}"]))]
        elif name not in STARTS:
            result[name] = array[masks[level]]
    return result


def _starts(lengths: NDArray[Any]) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])


def _is_start(name: str) -> bool:
    return name in STARTS or name.startswith("input_start.")


class _ArrayFile:
    """An .npy file that grows. `last`: the sum of the lengths so far, for bounds."""

    def __init__(self, path: Path, dtype: np.dtype[Any], rest: tuple[int, ...]):
        self.path, self.dtype, self.rest = path, dtype, rest
        self.file = path.open("wb")
        self.number = self.last = 0
        self._write_header()
        self.start = self.file.tell()

    def _write_header(self) -> None:
        shape = (self.number, *self.rest)
        facts = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self.file, facts)

    def append(self, array: NDArray[Any]) -> None:
        self.file.write(np.ascontiguousarray(array, self.dtype).data)
        self.number += len(array)

    def zeros(self, number: int) -> NDArray[Any]:
        return np.zeros((number, *self.rest), self.dtype)

    def close(self) -> None:
        """Write the header again, now with the length. numpy leaves room for it."""
        self.file.seek(0)
        self._write_header()
        assert self.file.tell() == self.start
        self.file.close()
