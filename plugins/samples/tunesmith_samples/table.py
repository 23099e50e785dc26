"""Print completions before and after training side by side."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDTH = 100  # columns of the plain text, for log files
LONGEST = 600  # characters shown of a prompt and of a completion


def pairs(samples: Iterable[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """Return (prompt, completion before, completion after) for each prompt that was sampled after training."""
    samples = list(samples)
    before = {s["prompt"]: s["completion"] for s in samples if s["when"] == "before"}
    return [
        (s.get("text", s["prompt"]), before.get(s["prompt"], "(not sampled)"), s["completion"])
        for s in samples
        if s["when"] == "after"
    ]


def show(samples: Iterable[dict[str, Any]], console: Console | None = None) -> None:
    """Print the pairs: as a table on a terminal, otherwise as wrapped plain text."""
    console = console or Console()
    rows = [(_end(prompt), _start(before), _start(after)) for prompt, before, after in pairs(samples)]
    if not rows:
        return
    if console.is_terminal:
        table = Table(title="samples", title_justify="left", show_lines=True)
        for name in ("prompt", "before", "after"):
            table.add_column(name, overflow="fold")  # a word may be long: an untrained model repeats itself
        for row in rows:
            table.add_row(*map(Text, row))  # Text, so that [brackets] are not parsed as markup
        console.print(table)
    else:
        console.print(plain(rows), markup=False, highlight=False, soft_wrap=True)


def plain(rows: Iterable[tuple[str, str, str]]) -> str:
    """Format the pairs as plain text with a label before each part."""
    parts = []
    for number, row in enumerate(rows, 1):
        texts = [_wrapped(label, text) for label, text in zip(("prompt", "before", "after"), row, strict=True)]
        parts.append("\n".join([f"sample {number}", *texts]))
    return "\n\n".join(parts)


def _wrapped(label: str, text: str) -> str:
    lines = textwrap.wrap(text, WIDTH - 10) or ["(empty)"]
    return "\n".join(
        f"  {name:<8}{line}".rstrip() for name, line in zip([label, *[""] * len(lines)], lines, strict=False)
    )


def _end(text: str) -> str:
    """Return a prompt on one line: its end, from a word on, because that is where the question is."""
    text = _escaped(text)
    return text if len(text) <= LONGEST else f"... {text[-LONGEST:].partition(' ')[2] or text[-LONGEST:]}"


def _start(text: str) -> str:
    """Return the start of a completion on one line."""
    text = _escaped(text)
    return text if len(text) <= LONGEST else f"{text[:LONGEST].rpartition(' ')[0] or text[:LONGEST]} ..."


def _escaped(text: str) -> str:
    """Write line breaks as \\n, so that a poem or a program takes no more lines than other texts."""
    return text.strip().replace("\r\n", "\n").replace("\n", "\\n")
