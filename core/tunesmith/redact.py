"""Secrets out of everything that is written: values of secret environment variables, and what looks like a token."""

from __future__ import annotations

import os
import re

NAMES = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|API_?KEY|ACCESS_?KEY", re.I)
SHAPES = re.compile(r"\b(hf_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|AKIA[A-Z0-9]{16})\b")
SHORTEST = 8  # shorter values would be found everywhere


def redact(text: str) -> str:
    """The text with secrets replaced by ***."""
    values = {value for name, value in os.environ.items() if NAMES.search(name) and len(value) >= SHORTEST}
    for value in sorted(values, key=len, reverse=True):
        text = text.replace(value, "***")
    return SHAPES.sub("***", text)
