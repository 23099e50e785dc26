"""Escape control characters of texts that come from files, so that a text can't change what a terminal shows."""

from __future__ import annotations

import re

UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e007f\ud800-\udfff]"
)
"""Control characters except tab and newline, marks that reorder or hide text, and halves of surrogate pairs."""
NOT_OURS = re.compile(r"(?!\x1b\[[0-9;?]*[A-Za-z]|[\r\x07\b])[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Control characters in the output, except those of colors, progress bars and the movement of the cursor."""


def printable(text: str) -> str:
    """Return the text with control characters escaped as Python writes them: an escape character becomes \\x1b."""
    return UNSAFE.sub(_escaped, text)


def harmless(text: str) -> str:
    """Return output without the sequences that no command prints, such as those that set a clipboard."""
    return NOT_OURS.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    return ascii(match[0])[1:-1]
