"""Send and receive messages between a run and the process that renders: JSON, followed by texts end to end."""

from __future__ import annotations

import json
import struct
from typing import IO, Any

_HEADER = struct.Struct(">QQ")
_encode = json.JSONEncoder(check_circular=False, separators=(",", ":")).encode


class ProtocolError(Exception):
    """The other side sent a malformed message."""


def packed(value: Any) -> str:
    """Return a value as ASCII JSON, with lone surrogates escaped. Raise RecursionError, ValueError, TypeError."""
    return _encode(value)


def send(pipe: IO[bytes], value: str, text: bytes = b"") -> None:
    """Write a message: JSON from `packed`, and text in UTF-8. Raise OSError."""
    rest = memoryview(b"".join((_HEADER.pack(len(value), len(text)), value.encode("ascii"), text)))
    while rest:
        rest = rest[pipe.write(rest) :]
    pipe.flush()


def sizes(pipe: IO[bytes]) -> tuple[int, int]:
    """Read the header of a message: bytes of its JSON and of its text. Raise EOFError at end of input, OSError."""
    return _HEADER.unpack(_exactly(pipe, _HEADER.size))


def receive(pipe: IO[bytes], body: int, tail: int) -> tuple[Any, str]:
    """Read the rest of a message. Raise ProtocolError if it is malformed, EOFError at the end of input, or OSError."""
    data, text = _exactly(pipe, body), _exactly(pipe, tail)
    try:
        return json.loads(data), text.decode("utf-8")
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"malformed message: {error}") from error


def _exactly(pipe: IO[bytes], size: int) -> bytes:
    parts = []
    while size:
        part = pipe.read(size)
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
