"""Read run.json, the record of the last run in a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def last_record(folder: Path) -> dict[str, Any]:
    """Return the content of a folder's run.json, or an empty dict if there is no readable one."""
    try:
        record = json.loads((folder / "run.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}
