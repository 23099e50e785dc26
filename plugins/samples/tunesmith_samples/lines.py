"""samples.jsonl: one JSON object a line, kept whole over interruptions."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tunesmith.redact import clean

KEYS = {"when", "step", "prompt", "completion"}


def append(path: Path, samples: Iterable[dict[str, Any]]) -> None:
    """Write the samples of one round, on disk for every reader when this returns."""
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(json.dumps(clean(sample), ensure_ascii=False) + "\n" for sample in samples))


def read(path: Path) -> list[dict[str, Any]]:
    """All whole samples of a file; none where there is no file."""
    samples = []
    for line in path.read_bytes().splitlines() if path.exists() else ():
        try:
            sample = json.loads(line)
        except ValueError:  # torn by an interruption
            continue
        if isinstance(sample, dict) and sample.keys() >= KEYS:
            samples.append(sample)
    return samples


def rewind(path: Path, step: int) -> None:
    """Keep the samples up to `step` (0: none), or start the file; it is replaced in one go.

    Those from "after" an earlier end go too: training goes on.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = [s for s in read(path) if s["step"] <= step and s["when"] != "after"] if step else []
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write("".join(json.dumps(sample, ensure_ascii=False) + "\n" for sample in kept))
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
