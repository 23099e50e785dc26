"""llms.txt and llms-full.txt contain what docs/index.md lists, and the pages for coding agents."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.repo.source import ROOT

DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    env = {**os.environ, "SITE_URL": "https://example.org/docs"}
    subprocess.run([sys.executable, "tools/llms.py", str(folder)], cwd=ROOT, env=env, check=True, capture_output=True)
    return folder


def test_every_page_of_the_index_is_a_link_with_its_description(folder: Path) -> None:
    index, text = (DOCS / "index.md").read_text("utf-8"), (folder / "llms.txt").read_text("utf-8")
    rows = re.findall(r"^\| \[([\w-]+)\.md\]\([\w-]+\.md\) \| (.+) \|$", index, re.M)
    assert {name for name, _ in rows} == {path.stem for path in DOCS.glob("*.md")} - {"index"}
    links = re.findall(r"^- \[(.+)\]\(https://example\.org/docs/([\w-]+)\.html\): (.+)$", text, re.M)
    assert [name for _, name, _ in links] == [name for name, _ in rows]
    for (name, description), (title, _, shown) in zip(rows, links, strict=True):
        assert (DOCS / f"{name}.md").read_text("utf-8").startswith(f"# {title}\n")
        assert re.sub(r"[^a-z]", "", shown.lower()) in re.sub(r"[^a-z]", "", description.lower())


def test_it_has_the_form_of_the_convention(folder: Path) -> None:
    lines = (folder / "llms.txt").read_text("utf-8").splitlines()
    assert lines[0] == "# Tunesmith" and lines[2].startswith("> Fine-tune language models")
    headings = [line for line in lines if line.startswith("#")]
    assert len(headings) >= 5 and all(line.startswith("## ") for line in headings[1:])
    after = lines[lines.index(headings[1]) :]
    assert all(line.startswith(("- [", "## ")) or not line for line in after)


def test_the_full_text_has_every_page_and_every_topic(folder: Path) -> None:
    full = (folder / "llms-full.txt").read_text("utf-8")
    for path in DOCS.glob("*.md"):
        assert path.stem == "index" or path.read_text("utf-8") in full, path.name
    pages = sorted((folder / "agent-docs").glob("*.md"))
    linked = re.findall(r"\(https://example\.org/docs/agent-docs/(\w+)\.md\)", (folder / "llms.txt").read_text("utf-8"))
    assert sorted(linked) == [page.stem for page in pages] and len(pages) >= 10
    assert all(page.read_text("utf-8") in full for page in pages)
