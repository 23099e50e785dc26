"""The settings of Sphinx for the site, and what it needs to keep the anchors of the pages."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.transforms import Transform
from sphinx import addnodes

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
WIDE = 4  # columns of a table that becomes a list on a narrow screen
ANCHOR = re.compile(r'^<a id="([^"]+)">$')

project = "Tunesmith"
version = release = PROJECT["version"]
author = "the authors of Tunesmith"
html_title = f"Tunesmith {version}"
copyright = "the authors of Tunesmith. Apache-2.0"
extensions = ["myst_parser"]
myst_heading_anchors = 6
myst_enable_extensions: list[str] = []
exclude_patterns: list[str] = []
highlight_language = "text"
html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_baseurl = os.environ.get("SITE_URL", "")
html_copy_source = False
html_show_sourcelink = False
html_permalinks_icon = "#"
html_theme_options = {"navigation_with_keys": False, "top_of_page_buttons": []}
pygments_style = "github-light"
pygments_dark_style = "github-dark"
# A message or a console session in a block that names another language is shown as it is.
suppress_warnings = ["misc.highlighting_failure"]


def label_cells(table: nodes.table, head: list[str]) -> None:
    """Put the name of its column before the content of each cell; the style sheet shows it on narrow screens only."""
    for row in table.findall(nodes.row):
        for name, entry in zip(head[1:], list(row)[1:], strict=True):
            if not isinstance(row.parent, nodes.thead) and entry.astext() and name:
                entry[0].insert(0, nodes.inline("", f"{name}: ", classes=["label"]))


class KeepAnchors(Transform):
    """Make `<a id="...">` a target with exactly this id, before MyST looks up the links to it."""

    default_priority = 800

    def apply(self, **kwargs: Any) -> None:
        for node in list(self.document.findall(nodes.raw)):
            if match := ANCHOR.match(node.astext()):
                name = match[1]
                # The entry of the index makes the search find a key before the pages that mention it.
                entry = addnodes.index(entries=[("single", name, name, "main", None)])
                node.replace_self([entry, nodes.target("", "", ids=[name])])
                self.document.myst_slugs[name] = (node.line or 0, name, name)
        for table in self.document.findall(nodes.table):
            head = [entry.astext() for entry in table.findall(nodes.entry)][: table[0]["cols"]]
            if len(head) >= WIDE:
                table["classes"].append("stacked")
                label_cells(table, head)


def setup(app: Any) -> dict[str, bool]:
    app.add_transform(KeepAnchors)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
