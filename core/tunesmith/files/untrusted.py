"""Files that others made, read without trust and without a library: JSON, headers of weights, links out of a folder."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tunesmith.errors import ModelError

MAX_JSON = 64_000_000  # bytes
MAX_HEADER = 100_000_000  # bytes, as the safetensors library has it
BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "U16": 16, "I16": 16, "F16": 16,
    "BF16": 16, "U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64, "C64": 64, "F4": 4,
    "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip
"""Bits of an element, by the names that safetensors has for types."""


def read_json(
    path: Path, where: str | None = None, code: str = "model-config", kind: type | None = dict
) -> dict[str, Any]:
    """A JSON object (or any value, with kind None) from a file. Raises ModelError naming the file, and the place."""

    def wrong(what: str) -> ModelError:
        return ModelError(f"{path}{what}", where=where, code=code)

    try:
        if not path.is_file():  # neither a folder nor a pipe, which would never end
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
    except (OSError, ValueError) as error:  # ValueError: a number of thousands of digits
        raise wrong(f" can't be read: {error}") from None
    if kind is not None and not isinstance(content, kind):
        raise wrong(" holds no JSON object")
    return content  # type: ignore[no-any-return]


def leaves(value: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every value of a JSON tree that is no list or object, or an empty one, with the keys above it."""
    waiting: list[tuple[tuple[str, ...], Any]] = [((), value)]
    while waiting:
        path, item = waiting.pop()
        if isinstance(item, dict) and item:
            waiting += [((*path, key), below) for key, below in item.items()]
        elif isinstance(item, list) and item:
            waiting += [(path, below) for below in item]
        else:
            yield path, item


def check_weights(path: Path, where: str | None = None, code: str = "weights") -> None:
    """Raise ModelError for a .safetensors file whose header does not describe what is in it."""

    def damaged(why: str) -> ModelError:
        return ModelError(f"{path} is damaged: {why}", where=where, help="fetch it again", code=code)

    if not path.is_file():
        raise ModelError(f"{path} is missing", where=where, help="fetch it again", code=code)
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        size = path.stat().st_size - 8
        if not 2 <= length <= min(size, MAX_HEADER):
            raise damaged(f"its header claims {length:,} bytes, and {max(size, 0):,} follow")
        text = file.read(length)
    try:
        header = json.loads(text.decode("utf-8"))
        entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        spans = sorted((*_span(entry), name) for name, entry in entries.items())
    except (ValueError, RecursionError, AttributeError, KeyError, TypeError):
        raise damaged("its header can't be read") from None
    at = 0
    for start, end, name in spans:
        if start != at or end < start:
            raise damaged(f"the bytes of {name[:80]!r} overlap with others, or leave a gap")
        at = end
    if at != size - length:
        raise damaged(f"its tensors take {at:,} bytes of {size - length:,}")


def _span(entry: dict[str, Any]) -> tuple[int, int]:
    """First byte of a tensor and the byte after its last. Raises ValueError where they are not those of its shape."""
    start, end = entry["data_offsets"]
    numbers = [start, end, *entry["shape"]]
    if any(type(n) is not int or n < 0 for n in numbers):
        raise ValueError(numbers)
    bits = BITS.get(entry["dtype"])
    if bits is not None and math.prod(entry["shape"]) * bits != (end - start) * 8:
        raise ValueError(entry)
    return start, end


def leads_out(folder: Path, path: Path) -> bool:
    """Whether a path in a folder is a link to somewhere else.

    The cache of the hub is made of links to blobs/ beside the snapshot; and weights may lie elsewhere: they are
    nothing but numbers, wherever they are.
    """
    if not path.is_symlink():
        return False
    target, home = path.resolve(), folder.resolve()
    blobs = home.parent.parent / "blobs" if home.parent.name == "snapshots" else None
    weights = path.suffix == target.suffix == ".safetensors"
    return not (target.is_relative_to(home) or target.parent == blobs or weights)
