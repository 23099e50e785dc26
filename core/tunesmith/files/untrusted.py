"""Read untrusted files without other libraries: JSON, headers of weights, and links that leave a folder."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tunesmith.errors import ModelError

MAX_JSON = 64_000_000  # bytes
MAX_HEADER = 100_000_000  # bytes, the limit of the safetensors library
BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "U16": 16, "I16": 16, "F16": 16,
    "BF16": 16, "U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64, "C64": 64, "F4": 4,
    "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip
"""Name of a type in safetensors -> bits of an element."""


class TensorHeader(NamedTuple):
    """The type of a tensor as safetensors names it, such as BF16, and its shape."""

    dtype: str
    shape: tuple[int, ...]


def read_json(
    path: Path, where: str | None = None, code: str = "model-config", kind: type | None = dict
) -> dict[str, Any]:
    """Return the JSON object in a file, or any JSON value if `kind` is None.

    Raises ModelError with the path of the file and, for invalid JSON, the line and column. `where` is the place of the
    key that names the file.
    """

    def wrong(problem: str) -> ModelError:
        return ModelError(f"{path}{problem}", where=where, code=code)

    try:
        if not path.is_file():  # a folder, or a pipe, which would be read forever
            raise wrong(" is missing")
        if path.stat().st_size > MAX_JSON:
            raise wrong(f" is larger than {MAX_JSON:,} bytes")
        content = json.loads(path.read_bytes().decode("utf-8"))
    except json.JSONDecodeError as error:
        raise wrong(f":{error.lineno}:{error.colno}: {error.msg}") from None
    except UnicodeDecodeError as error:
        raise wrong(f" is not UTF-8: byte {error.start}") from None
    except RecursionError:
        raise wrong(" is nested too deeply") from None
    except (OSError, ValueError) as error:  # ValueError: an integer of more than 4,300 digits
        raise wrong(f" can't be read: {error}") from None
    if kind is not None and not isinstance(content, kind):
        raise wrong(f" must be a JSON object, got {type(content).__name__}")
    return content  # type: ignore[no-any-return]


def leaves(value: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield (keys above it, value) of each leaf of a JSON tree: scalars, empty objects and empty lists."""
    stack: list[tuple[tuple[str, ...], Any]] = [((), value)]
    while stack:
        path, item = stack.pop()
        if isinstance(item, dict) and item:
            stack += [((*path, key), child) for key, child in item.items()]
        elif isinstance(item, list) and item:
            stack += [(path, child) for child in item]
        else:
            yield path, item


def check_weights(path: Path, where: str | None = None, code: str = "weights") -> dict[str, TensorHeader]:
    """Return the header of a .safetensors file by name. Raise ModelError if it does not match the file's content.

    The file begins with the length of the header, 8 bytes in little-endian order. The header is JSON: for each tensor a
    type, a shape, and the span of its bytes. See https://huggingface.co/docs/safetensors.
    """

    def damaged(reason: str) -> ModelError:
        return ModelError(f"{path} is damaged: {reason}", where=where, help="fetch it again", code=code)

    if not path.is_file():
        raise ModelError(f"{path} is missing", where=where, help="fetch it again", code=code)
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        size = path.stat().st_size - 8
        if not 2 <= length <= min(size, MAX_HEADER):
            raise damaged(f"its header claims a length of {length:,} bytes, and {max(size, 0):,} bytes follow")
        text = file.read(length)
    try:
        header = json.loads(text.decode("utf-8"))
        entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        spans = sorted((*_span(entry), name) for name, entry in entries.items())
    except (ValueError, RecursionError, AttributeError, KeyError, TypeError):
        raise damaged("its header can't be read") from None
    # Spans must cover the data exactly. A gap could hide content, and an overlap could alias tensors.
    position = 0
    for start, end, name in spans:
        if start != position or end < start:
            raise damaged(f"the bytes of {name[:80]!r} overlap with those of another tensor, or leave a gap")
        position = end
    if position != size - length:
        raise damaged(f"its tensors take {position:,} bytes of {size - length:,}")
    return {name: TensorHeader(str(entry["dtype"]), tuple(entry["shape"])) for name, entry in entries.items()}


def _span(entry: dict[str, Any]) -> tuple[int, int]:
    """Return the first byte of a tensor and the byte after its last. Raises ValueError if they contradict its shape."""
    start, end = entry["data_offsets"]
    numbers = [start, end, *entry["shape"]]
    if any(type(n) is not int or n < 0 for n in numbers):
        raise ValueError(numbers)
    bits = BITS.get(entry["dtype"])
    if bits is not None and math.prod(entry["shape"]) * bits != (end - start) * 8:
        raise ValueError(entry)
    return start, end


def leads_out(folder: Path, path: Path) -> bool:
    """Return True if a path in a folder is a link to a file outside the folder.

    Two kinds of links are allowed and return False: those of the hub's cache to blobs/ next to the snapshot, and links
    from weights to weights (.safetensors), which contain only numbers.
    """
    if not path.is_symlink():
        return False
    target, home = path.resolve(), folder.resolve()
    blobs = home.parent.parent / "blobs" if home.parent.name == "snapshots" else None
    weights = path.suffix == target.suffix == ".safetensors"
    return not (target.is_relative_to(home) or target.parent == blobs or weights)
