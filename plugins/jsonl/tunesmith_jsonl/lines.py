"""A file of JSON lines that a killed and resumed run leaves as if it had never been interrupted."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunesmith.redact import clean


def append(path: Path, numbers: Mapping[str, Any]) -> None:
    """Write one line, on disk for every reader when this returns. What is not finite is null: JSON has no NaN."""
    finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in numbers.items()}
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(clean(finite), allow_nan=False) + "\n")


def rewind(path: Path, step: int) -> int:
    """Keep the lines up to `step` (0: none) and no damaged ones, or start the file; the number of damaged lines.

    The file is replaced in one go: killed at any instant, it is the old one or the new one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = path.read_bytes().splitlines() if step and path.exists() else []
    steps = [_step(line) for line in lines]
    kept = [line for line, at in zip(lines, steps, strict=True) if at is not None and at <= step]
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        file.writelines(line + b"\n" for line in kept)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    return steps.count(None)


def _step(line: bytes) -> int | None:
    """The step that a line tells of; None for a line that is no JSON object with a step."""
    try:
        value = json.loads(line)
    except ValueError:  # not JSON, or not UTF-8
        return None
    step = value.get("step") if isinstance(value, dict) else None
    return step if isinstance(step, int) else None
