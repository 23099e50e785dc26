"""The pieces that pages are made of: a page with its title, a table, a list of facts."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any


def page(title: str, *parts: str) -> str:
    made = "<!-- made by `make docs`; change the source instead -->"
    return "\n\n".join([f"# {title}", made, *(part.strip("\n") for part in parts if part)]) + "\n"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in (head, *rows)]
    lines.insert(1, ["---"] * len(head))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines).replace("| --- ", "|---").replace("--- |", "---|")


def points(facts: dict[str, str]) -> str:
    """A list of "name: text" for those that have a text."""
    made = [f"- {name}: {' '.join(text.split())}" for name, text in facts.items() if text]
    options: dict[str, Any] = {"subsequent_indent": "  ", "break_on_hyphens": False, "break_long_words": False}
    return "\n".join(textwrap.fill(line, 120, **options) for line in made)
