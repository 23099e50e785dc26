"""Read and write single tensors of .safetensors files, without mapping the files into memory.

Pages of a mapped file count as memory of the process, so a merge that maps a shard would hold the whole shard. The
format is described at https://huggingface.co/docs/safetensors.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tunesmith import ModelError
from tunesmith.files.untrusted import BITS, check_weights, leads_out, read_json

TORCH = {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "I16": torch.int16, "I32": torch.int32,
    "I64": torch.int64, "F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64,
}  # fmt: skip
"""Name of a type in safetensors -> torch's type. Files with other types, such as float8, are copied but not merged."""
NAMES = {dtype: name for name, dtype in TORCH.items()}
INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
COPIED_AT_ONCE = 1 << 22
"""Bytes that are copied or converted at a time."""


@dataclass(frozen=True)
class Stored:
    """A tensor in a file: its type and shape, and the first byte of its content."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * BITS[self.dtype] // 8


def stored_tensors(folder: Path) -> dict[str, Stored]:
    """Return the tensors of the model in a folder by name, in the order of its files. Raises ModelError."""
    tensors: dict[str, Stored] = {}
    for file in shard_files(folder):
        content = stored_in(file)
        if twice := sorted(tensors.keys() & content.keys()):
            raise ModelError(f"{twice[0]} is in {tensors[twice[0]].file} and in {file}", code="weights")
        tensors |= content
    return tensors


def stored_in(file: Path) -> dict[str, Stored]:
    """Return the tensors in a file by name, in their order there. Raises ModelError for a damaged file."""
    headers = check_weights(file)
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        spans = json.loads(stream.read(length))
    tensors: dict[str, Stored] = {}
    for name in sorted(headers, key=lambda name: spans[name]["data_offsets"]):
        header = headers[name]
        if header.dtype not in BITS:
            raise ModelError(f"{file}: {name} has an unknown type: {header.dtype}", code="weights")
        tensors[name] = Stored(file, header.dtype, header.shape, 8 + length + spans[name]["data_offsets"][0])
    return tensors


def shard_files(folder: Path) -> list[Path]:
    """Return the .safetensors files of the model in a folder: those of its index, or model.safetensors."""
    if (folder / INDEX).is_file():
        weight_map = read_json(folder / INDEX).get("weight_map")
        names = sorted({str(name) for name in weight_map.values()}) if isinstance(weight_map, dict) else []
        if not names or any(Path(name).name != name for name in names):
            raise ModelError(f"{folder / INDEX} does not name files of its folder", code="weights")
    elif (folder / SINGLE).is_file():
        names = [SINGLE]
    else:
        help = "name a base model with .safetensors files: --base MODEL"
        raise ModelError(f"{folder} has neither {SINGLE} nor {INDEX}", code="weights", help=help)
    if outside := [name for name in names if leads_out(folder, folder / name)]:
        raise ModelError(f"{folder / outside[0]} is a link that leads out of the folder", code="weights")
    return [folder / name for name in names]


def read(stored: Stored, dtype: torch.dtype | None = None) -> Tensor:
    """Return a tensor, in the type of the file or, if it has fractions, in `dtype`.

    Some megabytes are converted at a time, so no second copy exists. Raises ModelError for a type that torch can't
    compute with.
    """
    if stored.dtype not in TORCH:
        help = "name the base model that was not quantized: --base MODEL"
        raise ModelError(f"{stored.file} has weights of the type {stored.dtype}", code="weights", help=help)
    kept = TORCH[stored.dtype]
    tensor = torch.empty(stored.shape, dtype=dtype if dtype is not None and kept.is_floating_point else kept)
    flat, place = tensor.reshape(-1), stored.start
    staging = torch.empty(0 if tensor.dtype == kept else COPIED_AT_ONCE // kept.itemsize, dtype=kept)
    with stored.file.open("rb", buffering=0) as file:
        for part in flat.split(COPIED_AT_ONCE // kept.itemsize):
            content = part if tensor.dtype == kept else staging[: len(part)]
            buffer, done = memoryview(content.view(torch.uint8).numpy()), 0
            while done < len(buffer):
                number = os.preadv(file.fileno(), [buffer[done:]], place + done)
                if number == 0:
                    raise ModelError(f"{stored.file} became shorter while it was read", code="weights")
                done += number
            if content is not part:
                part.copy_(content)
            place += len(buffer)
    return tensor


class ShardWriter:
    """A writer of .safetensors files whose tensors are known in advance and come in any order."""

    def __init__(self, folder: Path, shards: Mapping[str, Mapping[str, tuple[str, tuple[int, ...]]]]):
        """Write the headers. `shards` maps each file to its tensors: type and shape by name."""
        self.places: dict[str, Stored] = {}
        self.missing: set[str] = set()
        self._files: dict[Path, int] = {}
        for file, tensors in shards.items():
            # Larger types first, so that each tensor begins at a multiple of its element.
            order = sorted(tensors, key=lambda name: -BITS[tensors[name][0]])
            header: dict[str, object] = {"__metadata__": {"format": "pt"}}
            place = 0
            for name in order:
                dtype, shape = tensors[name]
                end = place + math.prod(shape) * BITS[dtype] // 8
                header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [place, end]}
                self.places[name] = Stored(folder / file, dtype, tuple(shape), place)
                place = end
            text = json.dumps(header, separators=(",", ":")).encode()
            text += b" " * (-len(text) % 8)
            for name in order:
                at = self.places[name]
                self.places[name] = Stored(at.file, at.dtype, at.shape, 8 + len(text) + at.start)
            handle = os.open(folder / file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
            self._files[folder / file] = handle
            os.pwrite(handle, len(text).to_bytes(8, "little") + text, 0)
            os.ftruncate(handle, 8 + len(text) + place)
        self.missing = set(self.places)

    def write(self, name: str, tensor: Tensor) -> None:
        """Write a tensor, converted to the type of its header. Raises ValueError for another shape."""
        place, done = self.places[name], 0
        if tuple(tensor.shape) != place.shape:
            raise ValueError(f"{name} is {tuple(tensor.shape)}, planned as {place.shape}")
        flat = tensor.detach().contiguous().reshape(-1)
        for part in flat.split(COPIED_AT_ONCE // flat.element_size()):
            content = memoryview(part.to(TORCH[place.dtype]).view(torch.uint8).numpy())
            self._put(place, content, done)
            done += len(content)
        self.missing.discard(name)

    def copy(self, name: str, stored: Stored) -> None:
        """Copy the bytes of a tensor that does not change."""
        place, done = self.places[name], 0
        with stored.file.open("rb", buffering=0) as file:
            while done < place.bytes:
                part = os.pread(file.fileno(), min(COPIED_AT_ONCE, place.bytes - done), stored.start + done)
                if not part:
                    raise ModelError(f"{stored.file} became shorter while it was read", code="weights")
                self._put(place, memoryview(part), done)
                done += len(part)
        self.missing.discard(name)

    def _put(self, place: Stored, content: memoryview, offset: int) -> None:
        done = 0
        while done < len(content):
            done += os.pwrite(self._files[place.file], content[done:], place.start + offset + done)

    def close(self) -> None:
        """Flush and close the files. Raises RuntimeError if a tensor was not written."""
        for handle in self._files.values():
            os.fsync(handle)
        self.abort()
        if self.missing:
            raise RuntimeError(f"not written: {sorted(self.missing)[:3]}")

    def abort(self) -> None:
        """Close the files as they are."""
        for handle in self._files.values():
            os.close(handle)
        self._files.clear()


@contextlib.contextmanager
def writing_shards(writer: ShardWriter) -> Iterator[ShardWriter]:
    """Yield a writer, and close it; an error in the block is not hidden by one of closing."""
    try:
        yield writer
    except BaseException:
        writer.abort()
        raise
    writer.close()
