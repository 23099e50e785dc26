"""Copy the pages of the repository into one folder, as Sphinx reads them: links point to the pages of the site."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"(^(`{3,})[^\n]*\n.*?^\2[ \t]*$)", re.M | re.S)
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^)\s]+)\)")
PICTURE = re.compile(r"<picture>.*?</picture>", re.S)
FILES = {".svg", ".png", ".yaml", ".ipynb", ".py", ".jsonl", ".toml", ".json"}


def sources() -> dict[str, str]:
    """Return the path in the repository -> the path in the site of every page."""
    pages = {path: path.relative_to("docs").as_posix() for path in tracked("docs") if path.suffix == ".md"}
    for group in ("plugins", "contrib"):
        pages |= {
            path: f"{group}/{path.parent.name}.md" for path in tracked(group) if path.match(f"{group}/*/README.md")
        }
    pages |= {Path(f"{name}.md"): f"{name.lower()}.md" for name in ("CONTRIBUTING", "SECURITY", "CHANGELOG")}
    pages |= {Path("examples/README.md"): "examples.md"}
    return {path.as_posix(): page for path, page in pages.items()}


def tracked(folder: str) -> list[Path]:
    """Return the files below a folder that git tracks or does not ignore, relative to the repository."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", folder]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode()
    return sorted(Path(name) for name in listed.split("\0") if name and (ROOT / name).is_file())


def outside_code(text: str, change: Callable[[str], str]) -> str:
    """Apply a change to a page, but not to its fenced code blocks."""
    parts = FENCE.split(text)
    # split yields: text, block, fence, text, block, fence, ...
    return "".join(part if kind == 1 else change(part) for n, part in enumerate(parts) if (kind := n % 3) != 2)


class Stage:
    """The folder that Sphinx reads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pages = sources()
        self.families = sorted(
            {path.parent.name for path in tracked("examples") if path.match("examples/*/sft-*.yaml")}
        )

    def fill(self) -> None:
        """Write all pages and the files that they show or link to."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        for source, page in self.pages.items():
            change = functools.partial(self.rewrite, source=source, page=page)
            self.write(page, outside_code((ROOT / source).read_text("utf-8"), change))
        for family in self.families:
            self.write(f"examples/{family}.md", self.family_page(family))
        self.contents()

    def write(self, page: str, text: str) -> None:
        path = self.folder / page
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def append(self, page: str, text: str) -> None:
        path = self.folder / page
        path.write_text(f"{path.read_text('utf-8')}\n{text}\n", encoding="utf-8")

    def rewrite(self, text: str, source: str, page: str) -> str:
        """Return a part of a page with the links and pictures of the site."""
        text = PICTURE.sub(lambda match: self.pictures(match, source, page), text)
        return LINK.sub(lambda match: self.link(match, source, page), text)

    def pictures(self, match: re.Match[str], source: str, page: str) -> str:
        """Return one picture for each theme: <picture> follows the system, and the site has a switch."""
        dark, light = re.findall(r'(?:srcset|src)="([^"]+)"', match[0])
        options = "".join(f":{name}: {value}\n" for name, value in re.findall(r'(width|alt)="([^"]+)"', match[0]))
        return "\n".join(
            f"```{{image}} {self.target(name, source, page)}\n:class: only-{theme}\n{options}```\n"
            for theme, name in (("light", light), ("dark", dark))
        )

    def link(self, match: re.Match[str], source: str, page: str) -> str:
        mark, text, target = match.groups()
        if "://" in target or target.startswith(("#", "mailto:")):
            return match[0]
        new = self.target(target, source, page)
        if text.endswith(".md"):
            text = self.title(target, source) or text
        return f"{mark}[{text}]({new})" if new else text

    def title(self, target: str, source: str) -> str:
        """Return the title of the page that a link leads to: a reader of the site does not know names of files."""
        path = ROOT / os.path.dirname(source) / target.partition("#")[0]
        return path.read_text("utf-8").partition("\n")[0].removeprefix("# ") if path.is_file() else ""

    def target(self, target: str, source: str, page: str) -> str:
        """Return where a link of a page leads in the site; empty if the site does not have it."""
        name, hash, anchor = target.partition("#")
        path = os.path.normpath(os.path.join(os.path.dirname(source), name))
        if path in self.pages:
            reached = self.pages[path]
        elif path.startswith("examples/") and Path(path).name in self.families:
            reached = f"examples/{Path(path).name}.md"
        elif path.startswith("examples/") and Path(path).parent.name in self.families and path.endswith(".yaml"):
            file = Path(path)
            reached, hash, anchor = f"examples/{file.parent.name}.md", "#", re.sub(r"[^\w-]", "", file.name)
        elif path == "docs/decisions":
            reached = "decisions.md"
        elif (ROOT / path).is_file() and Path(path).suffix in FILES:
            reached = path.removeprefix("docs/")
            (self.folder / reached).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / path, self.folder / reached)
        else:
            return ""
        return os.path.relpath(reached, os.path.dirname(page) or ".") + hash + anchor

    def family_page(self, family: str) -> str:
        """Return a page with the configs of a family of models."""
        parts = [f"# Examples: {family}", "[families.md](../families.md) describes what differs between families."]
        for path in tracked(f"examples/{family}"):
            if path.suffix == ".yaml":
                text = (ROOT / path).read_text("utf-8").rstrip()
                parts.append(f"## {path.name}\n\n```yaml\n{text}\n```")
        return "\n\n".join(parts) + "\n"

    def contents(self) -> None:
        """Write the navigation: the sections of index.md, and lists of the pages that it does not name."""
        index = (self.folder / "index.md").read_text("utf-8")
        for section in re.split(r"^## ", index, flags=re.M)[1:]:
            names = [name for name in re.findall(r"^\| \[[^\]]+\]\(([\w-]+)\.md\)", section, re.M) if name != "index"]
            if names:
                self.append("index.md", toctree(names, caption=section.partition("\n")[0]))
        self.append("index.md", toctree(["examples", "contributing", "security", "changelog", "decisions"], "Project"))
        names = {group: [page for page in self.pages.values() if page.startswith(f"{group}/")] for group in
                 ("plugins", "contrib", "decisions")}  # fmt: skip
        self.append("plugins.md", toctree([name.removesuffix(".md") for name in names["plugins"] + names["contrib"]]))
        self.append("examples.md", toctree([f"examples/{family}" for family in self.families]))
        titles = {page: (self.folder / page).read_text("utf-8").partition("\n")[0][2:] for page in names["decisions"]}
        lines = [f"- [{title}]({page})" for page, title in titles.items()]
        head = "# Decisions\n\nWhat was decided, why, and the alternatives.\n\n"
        self.write("decisions.md", head + "\n".join(lines) + "\n")
        self.append("decisions.md", toctree([name.removesuffix(".md") for name in names["decisions"]]))


def toctree(pages: list[str], caption: str = "") -> str:
    options = ":hidden:\n" + (f":caption: {caption}\n" if caption else "")
    return "\n```{toctree}\n" + options + "\n" + "\n".join(pages) + "\n```\n"
