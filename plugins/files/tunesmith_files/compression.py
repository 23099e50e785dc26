"""Open data files as streams of bytes, and decompress them while they are read."""

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
"""A compressed table may decompress to SPARE bytes plus RATIO times the compressed bytes."""
DAMAGE_ERRORS = (EOFError, zlib.error, lzma.LZMAError, OSError)
"""Errors of the libraries for compressed data that is cut off or invalid. An OSError with an errno is a disk error."""


class File(Protocol):
    """A local or remote data file."""

    @property
    def name(self) -> str: ...

    @property
    def label(self) -> str:
        """The name of the file in messages."""

    def open(self) -> io.BufferedReader: ...

    def identity(self) -> Any:
        """Return a JSON value that changes with the content, or None if it is not available."""


@contextlib.contextmanager
def opened(file: File, compression: str | None) -> Iterator[io.BufferedReader]:
    """Open a file, and yield the stream of its decompressed content."""
    with file.open() as raw:
        yield raw if compression is None else io.BufferedReader(_decompressed(raw, compression), BUFFER)


def _decompressed(raw: io.BufferedReader, compression: str) -> Any:
    if compression == ".zst":
        import pyarrow

        return pyarrow.CompressedInputStream(pyarrow.PythonFile(raw, "r"), "zstd")
    name = {".gz": "gzip", ".bz2": "bz2", ".xz": "lzma"}[compression]
    try:
        return importlib.import_module(name).open(raw)
    except ImportError as error:
        message, help = f"this Python was built without {name}", "decompress the file"
        raise EnvironmentProblem(message, help=help, code="package") from error


@contextlib.contextmanager
def seekable(file: File, compression: str | None) -> Iterator[Any]:
    """Open a file of a format that is read from its end. Decompress it into a temporary file first if needed."""
    with file.open() as raw:
        if compression is None:
            yield raw
            return
        with tempfile.TemporaryFile() as content:
            stream = _decompressed(raw, compression)
            while piece := stream.read(BUFFER):
                content.write(piece)
                if content.tell() > SPARE + RATIO * raw.tell():
                    message = f"is more than {RATIO} times larger when decompressed"
                    help = "decompress it yourself where there is enough disk space"
                    raise DataError(message, where=file.label, code="broken-archive", help=help)
            content.seek(0)
            yield content
