"""Build the site from the pages of the repository (`make site`) in build/site or another folder, and check its links.

SITE_URL is the address that the site gets, such as https://example.org/tunesmith/. It is needed for sitemap.xml, and
for the links of 404.html if the site is not at the root of a server.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit
from xml.sax.saxutils import escape

from check import problems
from stage import ROOT, Stage

OUTPUT = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "site"
SOURCE = OUTPUT.parent / f"{OUTPUT.name}-source"
NOT_FOUND = """# Page not found

This page does not exist, or it has another name now. Use the search, or begin with the [list of pages](index.md).
"""


def build() -> None:
    """Run Sphinx. Every warning is an error."""
    shutil.rmtree(OUTPUT, ignore_errors=True)
    Stage(SOURCE).fill()
    (SOURCE / "404.md").write_text(f"---\norphan: true\nsearch: false\n---\n{NOT_FOUND}", encoding="utf-8")
    options = ["-b", "html", "-W", "-n", "--keep-going", "-q", "-E", "-c", str(Path(__file__).parent)]
    subprocess.run([sys.executable, "-m", "sphinx", *options, str(SOURCE), str(OUTPUT)], check=True)
    (OUTPUT / ".buildinfo").unlink(missing_ok=True)


def not_found_page(base: str) -> None:
    """Make the links of 404.html absolute: a server shows this page at the address that does not exist."""
    path = OUTPUT / "404.html"
    text = path.read_text("utf-8")
    for name in ("href", "src", "action", "data-content_root"):
        parts = text.split(f' {name}="')
        text = f' {name}="'.join(
            [parts[0], *(part if leads_out(part) else base + part.removeprefix("./") for part in parts[1:])]
        )
    path.write_text(text, encoding="utf-8")


def leads_out(target: str) -> bool:
    return target.startswith(("#", "/", "http:", "https:", "mailto:", "data:"))


def sitemap(url: str) -> None:
    """Write sitemap.xml with the address of every page."""
    pages = sorted(path.relative_to(OUTPUT).as_posix() for path in OUTPUT.rglob("*.html"))
    lines = [
        f"  <url><loc>{escape(url + page)}</loc></url>" for page in pages if page not in ("404.html", "search.html")
    ]
    head = '<?xml version="1.0" encoding="UTF-8"?>\n<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">'
    (OUTPUT / "sitemap.xml").write_text("\n".join([head, *lines, "</urlset>", ""]), encoding="utf-8")
    (OUTPUT / "robots.txt").write_text(f"User-agent: *\nSitemap: {url}sitemap.xml\n", encoding="utf-8")


def main() -> int:
    url = os.environ.get("SITE_URL", "").rstrip("/")
    url = url + "/" if url else ""
    build()
    not_found_page(urlsplit(url).path or "/")
    subprocess.run([sys.executable, str(ROOT / "tools" / "llms.py"), str(OUTPUT)], check=True)
    if url:
        sitemap(url)
    else:
        print("site: without SITE_URL, sitemap.xml is not written")
    broken = problems(OUTPUT, urlsplit(url).path or "/")
    print("\n".join(broken) or f"site: {len(list(OUTPUT.rglob('*.html')))} pages in {OUTPUT}, all links lead somewhere")
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
