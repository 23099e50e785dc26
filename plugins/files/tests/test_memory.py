"""Memory does not grow with the size of a file of any kind: reading 256 MiB takes no more than reading 64 MiB."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import ipc, parquet

READ = """
import sys
from pathlib import Path
from tunesmith_files.local import LocalFile
from tunesmith_files.rows import Data

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024

print(sum(len(row["text"]) for row in Data(LocalFile(Path(sys.argv[1])), sys.argv[2]).rows()), peak())
"""
ROW = 1 << 10
"""Bytes of a text, which is random so that compression in a table hardly makes it smaller."""
MIB = 1 << 20
MARGIN = 48
"""MiB by which two peaks may differ. Allocators take memory in pieces of up to 32 MiB; a reader that holds the file, or
one column of it, would take 192 MiB more.
"""


def texts(size: int) -> Iterator[str]:
    for _ in range(size // ROW):
        yield os.urandom(ROW // 2).hex()


def lines(path: Path, size: int) -> None:
    with path.open("w") as file:
        file.writelines(json.dumps({"text": text}) + "\n" for text in texts(size))


def compressed(path: Path, size: int) -> None:
    with gzip.open(path, "wt", compresslevel=1) as file:
        file.writelines(json.dumps({"text": text}) + "\n" for text in texts(size))


def array(path: Path, size: int) -> None:
    with path.open("w") as file:
        file.write("[")
        file.writelines(json.dumps({"text": text}) + "," for text in texts(size))
        file.write('{"text": ""}]')


def separated(path: Path, size: int) -> None:
    with path.open("w") as file:
        file.write("text\n")
        file.writelines(f'"{text}"\n' for text in texts(size))


def one_group(path: Path, size: int) -> None:
    """Write a parquet file with a single row group."""
    table = pa.table({"text": list(texts(size))})
    parquet.write_table(table, path, row_group_size=len(table), use_dictionary=False)


def batches(path: Path, size: int) -> None:
    table = pa.table({"text": list(texts(size))})
    with ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=1000)


MAKERS: dict[str, tuple[str, Callable[[Path, int], None]]] = {
    "a.jsonl": ("json", lines), "a.jsonl.gz": ("json", compressed), "a.json": ("json", array),
    "a.csv": ("csv", separated), "a.parquet": ("parquet", one_group), "a.arrow": ("arrow", batches),
    "a.txt": ("text", lines),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", MAKERS)
def test_reading_256_mib_takes_no_more_memory_than_64(name: str, tmp_path: Path) -> None:
    kind, make = MAKERS[name]
    peaks = []
    for size in (64 * MIB, 256 * MIB):
        path = tmp_path / name
        make(path, size)
        done: Any = subprocess.run(
            [sys.executable, "-c", READ, str(path), kind], capture_output=True, text=True, check=True
        )
        length, peak = done.stdout.split()
        assert int(length) >= size
        peaks.append(float(peak))
        path.unlink()
    assert peaks[1] - peaks[0] < MARGIN, peaks
