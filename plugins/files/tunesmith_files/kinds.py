"""What the name of a file says: of what kind it is, and how it is packed."""

from __future__ import annotations

from pathlib import PurePosixPath

KINDS = {
    ".json": "json", ".jsonl": "json", ".ndjson": "json", ".parquet": "parquet", ".csv": "csv", ".tsv": "csv",
    ".arrow": "arrow", ".txt": "text", ".md": "text",
}  # fmt: skip
"""Ending -> kind."""
PACKINGS = (".gz", ".bz2", ".xz", ".zst")
"""Endings after that of the kind."""


def packing_of(name: str) -> str | None:
    ending = PurePosixPath(name.lower()).suffix
    return ending if ending in PACKINGS else None


def bare(name: str) -> str:
    """The name in small letters, without the ending of its packing."""
    return name.lower().removesuffix(packing_of(name) or "")


def kind_of(name: str) -> str | None:
    """json, parquet, csv, arrow or text; None if the name does not say."""
    return KINDS.get(PurePosixPath(bare(name)).suffix)
