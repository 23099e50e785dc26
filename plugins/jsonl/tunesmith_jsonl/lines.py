"""Append to a JSON lines file, and rewind it so that a resumed run writes each step once."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunesmith.redact import clean


def append(path: Path, numbers: Mapping[str, Any]) -> None:
    """Append one line and close the file. Numbers that are not finite become null, because JSON has no NaN."""
    finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in numbers.items()}
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(clean(finite), allow_nan=False) + "\n")


def rewind(path: Path, step: int) -> int:
    """Drop damaged lines and the lines after `step` (0: all lines). Return the number of damaged lines.

    The file is created if it is missing. It is replaced atomically, so a run killed at any time leaves the old file or
    the new one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = path.read_bytes().splitlines() if step and path.exists() else []
    steps = [_step(line) for line in lines]
    kept = [line for line, number in zip(lines, steps, strict=True) if number is not None and number <= step]
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        file.writelines(line + b"\n" for line in kept)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    return steps.count(None)


def _step(line: bytes) -> int | None:
    """Return the step of a line, or None if the line is not a JSON object with a step."""
    try:
        value = json.loads(line)
    except ValueError:  # not JSON, or not UTF-8
        return None
    step = value.get("step") if isinstance(value, dict) else None
    return step if isinstance(step, int) else None
