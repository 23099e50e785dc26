"""Detect values that are valid but most likely a mistake: secrets, and variables that are not expanded."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from tunesmith.redact import SECRET_KEYS, redact

WANDB_KEY = re.compile(r"\b[0-9a-f]{40}\b")
UNEXPANDED = re.compile(r"\$\{\w+\}|^(~|\$[A-Za-z_]\w*)(/|$)")


def is_secret(path: Sequence[str | int], value: Any) -> bool:
    """Return True if a value looks like an access token, or if its key is one for a secret, such as `service_api_key`.

    40 hexadecimal digits count only if the path of the key contains "wandb": a git commit has the same form.
    """
    if not isinstance(value, str):
        return False
    if value and path and SECRET_KEYS.search(str(path[-1])):
        return True
    return redact(value) != value or bool("wandb" in ".".join(map(str, path)).lower() and WANDB_KEY.search(value))


def is_unexpanded(value: Any) -> bool:
    """Return True if a text that need not be a path looks like one that a shell would expand.

    Keys that are always paths refuse it; see files/paths.py::unexpanded.
    """
    return isinstance(value, str) and bool(UNEXPANDED.search(value))
