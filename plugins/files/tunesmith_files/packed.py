"""Data files as streams of bytes, unpacked while they are read."""

from __future__ import annotations

import contextlib
import importlib
import io
import lzma
import tempfile
import zlib
from collections.abc import Iterator
from typing import Any, Protocol

from tunesmith import DataError, EnvironmentProblem

BUFFER = 1 << 20
SPARE, RATIO = 64 << 20, 100
"""Bytes that a packed table may always have, and how many times those that were read for it."""
DAMAGES = (EOFError, zlib.error, lzma.LZMAError, OSError)
"""What the libraries raise for packed bytes that are cut off or are none; an OSError with a number is the disk's."""


class File(Protocol):
    """A data file, here or elsewhere."""

    @property
    def name(self) -> str: ...

    @property
    def label(self) -> str:
        """How messages call it."""

    def open(self) -> io.BufferedReader: ...

    def identity(self) -> Any:
        """A JSON value that changes with its content; None where nobody knows."""


@contextlib.contextmanager
def opened(file: File, packing: str | None) -> Iterator[io.BufferedReader]:
    """The content of a file from its start, unpacked."""
    with file.open() as raw:
        yield raw if packing is None else io.BufferedReader(_unpacked(raw, packing), BUFFER)


def _unpacked(raw: io.BufferedReader, packing: str) -> Any:
    if packing == ".zst":
        import pyarrow

        return pyarrow.CompressedInputStream(pyarrow.PythonFile(raw, "r"), "zstd")
    name = {".gz": "gzip", ".bz2": "bz2", ".xz": "lzma"}[packing]
    try:
        return importlib.import_module(name).open(raw)
    except ImportError as error:  # of a Python that was built without it
        message, help = f"this Python was built without {name}", "unpack the file"
        raise EnvironmentProblem(message, help=help, code="package") from error


@contextlib.contextmanager
def seekable(file: File, packing: str | None) -> Iterator[Any]:
    """The same for formats that are read from their end: what is packed is unpacked into a file without a name."""
    with file.open() as raw:
        if packing is None:
            yield raw
            return
        with tempfile.TemporaryFile() as whole:
            stream = _unpacked(raw, packing)
            while piece := stream.read(BUFFER):
                whole.write(piece)
                if whole.tell() > SPARE + RATIO * raw.tell():
                    message = f"becomes more than {RATIO} times as large when it is unpacked"
                    help = "unpack it yourself, where there is room for it"
                    raise DataError(message, where=file.label, code="broken-archive", help=help)
            whole.seek(0)
            yield whole
