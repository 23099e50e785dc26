"""List the runs below a folder."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tunesmith.files.record import last_record

DEEPEST = 5
"""Folders between the one that is listed and that of a run."""
MOST = 200
"""Runs in a list."""
TAIL = 65_536
"""Bytes at the end of metrics.jsonl that are read."""
SKIPPED = {".git", ".venv", "node_modules", "__pycache__"}


def run_folders(folder: Path, depth: int = 0) -> Iterator[Path]:
    """Yield the folders with a run.json or a metrics.jsonl. Links are not followed."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    names = {entry.name for entry in entries if entry.is_file(follow_symlinks=False)}
    if {"run.json", "metrics.jsonl"} & names:
        yield folder
        return
    for entry in entries:
        if depth < DEEPEST and entry.is_dir(follow_symlinks=False) and entry.name not in SKIPPED:
            yield from run_folders(Path(entry.path), depth + 1)


def last_metrics(path: Path) -> dict[str, Any]:
    """Return the last complete line of metrics.jsonl, or an empty dict."""
    try:
        with path.open("rb") as file:
            file.seek(max(os.fstat(file.fileno()).st_size - TAIL, 0))
            lines = file.read().splitlines()
    except OSError:
        return {}
    for line in reversed(lines):
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            return value
    return {}


def described(folder: Path, root: Path) -> dict[str, Any]:
    """Return what is known about a run: status, step, times, method, last metrics and checkpoints."""
    record = last_record(folder)
    outline = record.get("outline") if isinstance(record.get("outline"), dict) else {}
    numbers = [path.name.removeprefix("checkpoint-") for path in folder.glob("checkpoint-*") if path.is_dir()]
    return {
        "folder": os.path.relpath(folder, root),
        **{key: record.get(key) for key in ("status", "step", "total_steps", "stopped", "started", "seconds")},
        **{key: outline.get(key) for key in ("model", "method", "adapter")},
        "metrics": last_metrics(folder / "metrics.jsonl"),
        "checkpoints": sorted(int(number) for number in numbers if number.isdigit()),
    }


def runs(folder: Path, root: Path) -> dict[str, Any]:
    """Return the runs below a folder, with paths relative to `root`."""
    folders = list(run_folders(folder))
    listed = [described(one, root) for one in folders[:MOST]]
    return {"runs": listed, "left_out": max(len(folders) - MOST, 0)}
