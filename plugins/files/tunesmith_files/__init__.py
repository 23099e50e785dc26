"""Read rows of JSON, CSV, text, parquet and Arrow files, compressed or not, from local and remote file systems."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith import Plugin, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tunesmith import DatasetSpec, Finding, Row, Run

WORD = "files"
LIBRARIES = {
    "file": None,
    "memory": None,
    "http": ("aiohttp", "http"),
    "https": ("aiohttp", "http"),
    "s3": ("s3fs", "s3"),
    "s3a": ("s3fs", "s3"),
    "gs": ("gcsfs", "gcs"),
    "gcs": ("gcsfs", "gcs"),
    "az": ("adlfs", "azure"),
    "abfs": ("adlfs", "azure"),
    "adl": ("adlfs", "azure"),
    "oci": ("ocifs", "oci"),
    "hf": ("huggingface_hub", "hf"),
}
"""Source -> the module that fsspec needs to read it, and the extra that installs this module."""

plugin = Plugin(sources=tuple(LIBRARIES))


@hookimpl
def inspect(run: Run) -> None:
    from tunesmith_files.find import inspect_all

    inspect_all(run)


@hookimpl
def diagnose(run: Run) -> Iterable[Finding]:
    from tunesmith_files.remote import findings

    return findings(run)


@hookimpl
def load_rows(run: Run, spec: DatasetSpec) -> Iterable[Row]:
    from tunesmith_files.find import rows_of

    return rows_of(run, spec)
