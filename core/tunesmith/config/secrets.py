"""Values that are allowed where they stand and are most likely a mistake: secrets, and names that nobody expands."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from tunesmith.redact import redact

WANDB_KEY = re.compile(r"\b[0-9a-f]{40}\b")
UNEXPANDED = re.compile(r"\$\{\w+\}|^~(/|$)")


def is_secret(path: Sequence[str | int], value: Any) -> bool:
    """Whether the value of a key looks like a token; 40 hexadecimal digits do where the key speaks of wandb."""
    if not isinstance(value, str):
        return False
    return redact(value) != value or bool("wandb" in ".".join(map(str, path)).lower() and WANDB_KEY.search(value))


def is_unexpanded(value: Any) -> bool:
    """Whether a value names an environment variable or a home folder, which a YAML file is not asked for."""
    return isinstance(value, str) and bool(UNEXPANDED.search(value))
