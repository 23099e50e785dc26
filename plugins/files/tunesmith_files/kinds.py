"""Get the kind and the compression of a file from its name."""

from __future__ import annotations

from pathlib import PurePosixPath

from tunesmith.files.paths import COMPRESSIONS

KINDS = {
    ".json": "json", ".jsonl": "json", ".ndjson": "json", ".parquet": "parquet", ".csv": "csv", ".tsv": "csv",
    ".arrow": "arrow", ".txt": "text", ".md": "text",
}  # fmt: skip
"""Ending -> kind."""


def compression_of(name: str) -> str | None:
    """Return the compression of a file as its ending, such as ".gz". Return None for an uncompressed file."""
    ending = PurePosixPath(name.lower()).suffix
    return ending if ending in COMPRESSIONS else None


def uncompressed(name: str) -> str:
    """Return the name in lower case, without the ending of its compression."""
    return name.lower().removesuffix(compression_of(name) or "")


def kind_of(name: str) -> str | None:
    """Return "json", "parquet", "csv", "arrow" or "text", or None if the name does not show the kind."""
    return KINDS.get(PurePosixPath(uncompressed(name)).suffix)
