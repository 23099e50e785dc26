"""docs/formats.md lists every dataset type of this repository's plugins under the kind of its rows."""

from __future__ import annotations

import re

import pytest

from tests.repo.source import ROOT, plugin_metadata

HEADINGS = {
    "conversation": "Conversations and instructions", "text": "Texts", "pair": "Pairs", "labelled": "Labelled answers",
    "stepwise": "Steps", "prompt": "Prompts",
}  # fmt: skip
IMPLICIT = {"user_defined": "a mapping", "function": "./rows.py:name"}
PAGE = (ROOT / "docs/formats.md").read_text("utf-8")


def types() -> list[tuple[str, str]]:
    """Return (kind of rows, type) for each type that a plugin declares."""
    pairs = set()
    for info in plugin_metadata().values():
        for kind, names in info["strategies"].items():
            pairs |= {(kind, name) for name in names}
    return sorted(pairs)


def section(kind: str) -> str:
    """Return the section of the page on a kind of rows."""
    _, _, rest = PAGE.partition(f"\n## {HEADINGS[kind]}\n")
    return rest.partition("\n## ")[0]


def test_every_kind_of_rows_has_a_section() -> None:
    assert {kind for kind, _ in types()} == set(HEADINGS) and all(section(kind) for kind in HEADINGS)


@pytest.mark.parametrize(("kind", "name"), types())
def test_type_is_on_the_page(kind: str, name: str) -> None:
    """Accept the full name, or its base with the part after a dot or colon in the same row of the table."""
    shown = IMPLICIT.get(name, name)
    if name == "function":
        return  # one line of the page covers all kinds
    rows = [line for line in section(kind).splitlines() if line.startswith("|")]
    base, mark, end = re.fullmatch(r"([^.:]+)([.:]?)(.*)", name).groups()  # type: ignore[union-attr]
    for row in rows:
        words = set(re.findall(r"`([^`]+)`", row)) | ({shown} if shown in row else set())
        bases = {re.split("[.:]", word)[0] for word in words}
        if shown in words or (base in bases and {f"{mark}{end}", end} & words):
            return
    pytest.fail(f"docs/formats.md does not list {name} under {HEADINGS[kind]}")
