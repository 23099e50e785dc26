"""Check a built site: its links and anchors exist, and its pages load nothing from elsewhere."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADED = {
    "img": ("src", "srcset"),
    "script": ("src",),
    "iframe": ("src",),
    "source": ("src", "srcset"),
    "video": ("src", "poster"),
    "object": ("data",),
    "embed": ("src",),
}
"""What a browser loads without a click, by element. `link` is treated apart: its `rel` decides."""
LINKS_ONLY = {"canonical", "next", "prev", "search", "author", "index", "top"}
CSS_URL = re.compile(r"""(?:url\(\s*['"]?|@import\s+['"])(https?:)?//""")


class Page(HTMLParser):
    """The ids and links of a page, and what it loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.ids |= {values[name] for name in ("id", "name") if values.get(name)}
        self.links += [values[name] for name in ("href", "src") if values.get(name)]
        self.loaded += [values[name] for name in LOADED.get(tag, ()) if values.get(name)]
        if tag == "link" and not set(values.get("rel", "").split()) <= LINKS_ONLY:
            self.loaded.append(values.get("href", ""))
        if CSS_URL.search(values.get("style", "")):
            self.loaded.append("https://" + values["style"])


def problems(folder: Path, base: str = "/") -> list[str]:
    """Return a line for each broken link of a site, and for each thing that a page would load from another server.

    Args:
        base: the path of the site on its server; links that begin with it are relative to `folder`.
    """
    pages = {path: Page(path.read_text("utf-8")) for path in sorted(folder.rglob("*.html"))}
    lines = []
    for path, page in pages.items():
        name = path.relative_to(folder).as_posix()
        lines += [f"{name}: loads {link}" for link in page.loaded if urlsplit(link).netloc]
        lines += [
            f"{name}: broken link {link}"
            for link in dict.fromkeys(page.links)
            if is_broken(link, path, folder, base, pages)
        ]
    for path in sorted(folder.rglob("*.css")):
        if CSS_URL.search(path.read_text("utf-8")):
            lines.append(f"{path.relative_to(folder).as_posix()}: loads from another server")
    return lines


def is_broken(link: str, path: Path, folder: Path, base: str, pages: dict[Path, Page]) -> bool:
    """Return whether a link of the page at `path` leads nowhere. Links to other servers are not followed."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return False
    name = unquote(parts.path)
    if name.startswith(base) and name.startswith("/"):
        target = folder / name.removeprefix(base)
    else:
        target = path.parent / name if name else path
    target = target.resolve()
    if target.is_dir():
        target /= "index.html"
    if not target.is_file():
        return True
    return bool(parts.fragment) and target in pages and unquote(parts.fragment) not in pages[target].ids
