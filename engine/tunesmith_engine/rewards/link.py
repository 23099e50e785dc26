"""Messages between a trainer and the processes of its reward functions: JSON with its length, on a socket."""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

HEADER = struct.Struct(">Q")


def packed(value: Any) -> bytes:
    """Return a message. Values that JSON does not have become numbers, lists or texts."""
    text = json.dumps(value, default=_json).encode()
    return HEADER.pack(len(text)) + text


def unpacked(buffer: bytearray) -> tuple[Any] | None:
    """Remove a complete message from the start of a buffer, and return it in a tuple; None if there is none yet."""
    if len(buffer) < HEADER.size:
        return None
    end = HEADER.size + HEADER.unpack_from(buffer)[0]
    if len(buffer) < end:
        return None
    value = json.loads(bytes(buffer[HEADER.size : end]))
    del buffer[:end]
    return (value,)


def receive(connection: socket.socket, buffer: bytearray) -> tuple[Any] | None:
    """Wait for the next message, and return it in a tuple; None if the other side closed the connection."""
    while (message := unpacked(buffer)) is None:
        chunk = connection.recv(1 << 20)
        if not chunk:
            return None
        buffer += chunk
    return message


def _json(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)
