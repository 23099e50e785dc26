"""Read and write samples.jsonl, and rewind it so that a resumed run has each round once."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tunesmith.redact import clean

KEYS = {"when", "step", "prompt", "completion"}


def append(path: Path, samples: Iterable[dict[str, Any]]) -> None:
    """Append the samples of one round and close the file."""
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(json.dumps(clean(sample), ensure_ascii=False) + "\n" for sample in samples))


def read(path: Path) -> list[dict[str, Any]]:
    """Return the complete samples in a file, or an empty list if the file is missing."""
    samples = []
    for line in path.read_bytes().splitlines() if path.exists() else ():
        try:
            sample = json.loads(line)
        except ValueError:  # incomplete because of an interruption
            continue
        if isinstance(sample, dict) and sample.keys() >= KEYS and isinstance(sample["step"], int | float):
            samples.append(sample)
    return samples


def rewind(path: Path, step: int) -> None:
    """Drop the samples after `step` (0: all samples), and those taken "after" training, because training continues.

    The file is created if it is missing, and is replaced atomically.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = [s for s in read(path) if s["step"] <= step and s["when"] != "after"] if step else []
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write("".join(json.dumps(sample, ensure_ascii=False) + "\n" for sample in kept))
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
