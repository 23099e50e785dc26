"""The settings of Sphinx for the site, and what it needs to keep the anchors of the pages."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.transforms import Transform

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
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
html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_baseurl = os.environ.get("SITE_URL", "")
html_copy_source = False
html_show_sourcelink = False
html_permalinks_icon = "#"
html_theme_options = {"navigation_with_keys": False, "top_of_page_buttons": []}
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"
# A message or a console session in a block that names another language is shown as it is.
suppress_warnings = ["misc.highlighting_failure"]


class KeepAnchors(Transform):
    """Make `<a id="...">` a target with exactly this id, before MyST looks up the links to it."""

    default_priority = 800

    def apply(self, **kwargs: Any) -> None:
        for node in list(self.document.findall(nodes.raw)):
            if match := ANCHOR.match(node.astext()):
                name = match[1]
                node.replace_self(nodes.target("", "", ids=[name]))
                self.document.myst_slugs[name] = (node.line or 0, name, name)


def setup(app: Any) -> dict[str, bool]:
    app.add_transform(KeepAnchors)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
