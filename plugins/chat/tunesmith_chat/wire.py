"""Messages between a run and the process that renders: JSON, and the rendered texts end to end behind it."""

from __future__ import annotations

import json
import struct
from typing import IO, Any

_HEAD = struct.Struct(">QQ")
_encode = json.JSONEncoder(check_circular=False, separators=(",", ":")).encode


class Broken(Exception):
    """The other side ended, or said what is no message."""


def packed(value: Any) -> str:
    """JSON in ASCII, which holds lone surrogates too. Raises RecursionError, ValueError, TypeError."""
    return _encode(value)


def send(pipe: IO[bytes], value: str, text: bytes = b"") -> None:
    """Write one message: JSON from `packed`, and text in UTF-8. Raises OSError."""
    rest = memoryview(b"".join((_HEAD.pack(len(value), len(text)), value.encode("ascii"), text)))
    while rest:
        rest = rest[pipe.write(rest) :]
    pipe.flush()


def sizes(pipe: IO[bytes]) -> tuple[int, int]:
    """Read the head of a message: bytes of its JSON and of its text. Raises Broken, EOFError at the end, OSError."""
    return _HEAD.unpack(_exactly(pipe, _HEAD.size))


def receive(pipe: IO[bytes], body: int, tail: int) -> tuple[Any, str]:
    """Read the rest of a message. Raises Broken, EOFError at the end, OSError."""
    data, text = _exactly(pipe, body), _exactly(pipe, tail)
    try:
        return json.loads(data), text.decode("utf-8")
    except (ValueError, RecursionError) as error:
        raise Broken(f"no message: {error}") from error


def _exactly(pipe: IO[bytes], size: int) -> bytes:
    parts = []
    while size:
        part = pipe.read(size)
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
