"""Read JSON files of which a part may be missing: run.json, the record of the last run in a folder, and others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def json_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file, or an empty dict if there is no readable one."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def last_record(folder: Path) -> dict[str, Any]:
    """Return the content of a folder's run.json, or an empty dict if there is no readable one."""
    return json_object(folder / "run.json")
