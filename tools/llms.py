"""Write llms.txt, llms-full.txt and the pages for coding agents into a folder, such as that of the site.

    python tools/llms.py build/site

The format is that of llmstxt.org: a title, a summary, and sections of links with descriptions. Sections, links and
descriptions are those of docs/index.md. SITE_URL, the address of the site, makes the links absolute. llms-full.txt has
the text of every page. The pages of `tunesmith agent-docs` become agent-docs/TOPIC.md, with the facts of the plugins
that are installed where this tool runs.
"""

from __future__ import annotations

import os
import re
import sys
import tomllib
from pathlib import Path

from tunesmith_agentdocs import topics

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
ROW = re.compile(r"^\| \[[^\]]*\]\(([\w-]+)\.md\) \| (.+) \|$", re.M)
NEXT = (
    "Coding agents: `tunesmith agent-docs` prints the pages of the section Agent docs, with the facts of what is "
    "installed. `tunesmith mcp` serves checks, schemas and plans (MCP)."
)


def sections(index: str) -> dict[str, list[tuple[str, str]]]:
    """Return heading -> (page, description) of each row of the tables of docs/index.md."""
    parts = re.split(r"^## (.+)$", index, flags=re.M)
    return {
        heading: rows for heading, text in zip(parts[1::2], parts[2::2], strict=True) if (rows := ROW.findall(text))
    }


def title(page: str) -> str:
    """Return the heading of a page of docs/."""
    return (DOCS / f"{page}.md").read_text("utf-8").partition("\n")[0].removeprefix("# ")


def llms_txt(index: str, url: str) -> str:
    """Return llms.txt. `url` is what links begin with: the address of the site, or nothing."""
    description = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["description"]
    lines = [index.partition("\n")[0], "", f"> {description}", "", NEXT]
    for heading, rows in sections(index).items():
        lines += ["", f"## {heading}", ""]
        lines += [f"- [{title(page)}]({url}{page}.html): {plain(text)}" for page, text in rows]
    lines += ["", "## Agent docs", ""]
    lines += [f"- [{name}]({url}agent-docs/{name}.md): {summary}" for name, summary in topics.topics().items()]
    return "\n".join(lines) + "\n"


def plain(text: str) -> str:
    """Return a cell of a table without the escapes and links of Markdown."""
    return re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text).replace("\\|", "|")


def llms_full_txt(index: str, url: str) -> str:
    """Return llms-full.txt: llms.txt, then each page of docs/ that docs/index.md lists, then those for agents."""
    pages = [(f"{page}.html", DOCS / f"{page}.md") for rows in sections(index).values() for page, _ in rows]
    texts = [f"<!-- {url}{name} -->\n\n{path.read_text('utf-8')}" for name, path in pages]
    texts += [f"<!-- {url}agent-docs/{name}.md -->\n\n{topics.page(name)}" for name in topics.topics()]
    return "\n".join([llms_txt(index, url), *texts])


def write(folder: Path, url: str = "") -> list[Path]:
    """Write all files into a folder, and return them."""
    index = (DOCS / "index.md").read_text("utf-8")
    texts = {"llms.txt": llms_txt(index, url), "llms-full.txt": llms_full_txt(index, url)}
    texts |= {f"agent-docs/{name}.md": topics.page(name) for name in topics.topics()}
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return [folder / name for name in texts]


def main() -> int:
    if len(sys.argv) != 2:
        print("usage: python tools/llms.py OUTPUT_FOLDER", file=sys.stderr)
        return 2
    url = os.environ.get("SITE_URL", "").rstrip("/")
    paths = write(Path(sys.argv[1]), f"{url}/" if url else "")
    print(f"llms: {len(paths)} files in {sys.argv[1]}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
