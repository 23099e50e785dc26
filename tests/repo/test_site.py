"""The site: its links are checked, it loads nothing from elsewhere, and every page of the repository is part of it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from types import ModuleType

import pytest

from tests.repo.source import ROOT, short, toml

TOOLS = ROOT / "tools" / "site"


def load(name: str) -> ModuleType:
    """Import a module of tools/site by its path: site is also a module of the standard library."""
    spec = importlib.util.spec_from_file_location(f"site_{name}", TOOLS / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


check, stage = load("check"), load("stage")


def site(folder: Path, **pages: str) -> Path:
    for name, text in pages.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('<a href="b.html#there">', ""),
        ('<a href="#here"><p id="here">', ""),
        ('<a href="/base/b.html">', ""),
        ('<a href="https://example.org/x">', ""),
        ('<a href="c.html">', "a.html: broken link c.html"),
        ('<a href="b.html#gone">', "a.html: broken link b.html#gone"),
        ('<img src="gone.png">', "a.html: broken link gone.png"),
        ('<script src="https://cdn.example.org/x.js"></script>', "a.html: loads https://cdn.example.org/x.js"),
        ('<link rel="stylesheet" href="//fonts.example.org/x.css">', "a.html: loads //fonts.example.org/x.css"),
        ('<p style="background: url(https://example.org/x.png)">', "a.html: loads https://background"),
    ],
)
def test_broken_links_and_foreign_files_are_found(text: str, message: str, tmp_path: Path) -> None:
    folder = site(tmp_path, a=text, b='<p id="there">')
    assert [line[: len(message)] for line in check.problems(folder, "/base/")] == ([message] if message else [])


def test_style_sheet_that_loads_a_font_is_found(tmp_path: Path) -> None:
    (tmp_path / "site.css").write_text("@font-face { src: url('https://example.org/x.woff2') }")
    assert check.problems(tmp_path) == ["site.css: loads from another server"]


def test_every_page_is_part_of_the_site() -> None:
    pages = stage.sources()
    assert len(set(pages.values())) == len(pages)
    written = [*ROOT.glob("docs/*.md"), *ROOT.glob("docs/decisions/*.md"), *ROOT.glob("plugins/*/README.md")]
    assert {short(path) for path in written} <= set(pages)


def test_links_lead_to_pages_of_the_site(tmp_path: Path) -> None:
    copy = stage.Stage(tmp_path)
    for source, target, expected in [
        ("docs/start.md", "config.md#lora_r", "config.md#lora_r"),
        ("docs/start.md", "../plugins/lora/README.md", "plugins/lora.md"),
        ("plugins/lora/README.md", "../../docs/adapters.md", "../adapters.md"),
        ("docs/rlhf.md", "../examples/llama/grpo.yaml", "examples/llama.md#grpoyaml"),
        ("docs/start.md", "../pyproject.lock", ""),
    ]:
        assert copy.target(target, source, copy.pages[source]) == expected


def test_code_is_copied_as_it_is() -> None:
    text = "a [b](c)\n```yaml\nx: [b](c)\n```\na [b](c)\n"
    assert stage.outside_code(text, lambda part: part.replace("[b](c)", "d")) == "a d\n```yaml\nx: [b](c)\n```\na d\n"


def test_what_the_site_needs_has_a_tested_version() -> None:
    needed = toml(ROOT / "pyproject.toml")["dependency-groups"]["site"]
    pinned = (ROOT / "constraints.txt").read_text("utf-8")
    assert needed and all(f"\n{line.partition('>')[0]}==" in pinned for line in needed)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("furo") is None, reason="needs the group site: run `make site` once")
def test_site_is_built_without_warnings(tmp_path: Path) -> None:
    folder = tmp_path / "site"
    command = [sys.executable, str(TOOLS / "build.py"), str(folder)]
    environment = {**os.environ, "SITE_URL": "https://example.org/docs/"}
    environment.pop("PYTHONPATH", None)  # conftest.py refuses pickles in every process; Sphinx keeps its pages in them
    completed = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert completed.returncode == 0, completed.stdout + completed.stderr
    config = check.Page((folder / "config.html").read_text("utf-8"))
    assert {"learning_rate", "lora_r", "dpo.rl_beta", "fsdp_config.offload_params"} <= config.ids
    assert "unknown-key" in check.Page((folder / "errors.html").read_text("utf-8")).ids
    assert "dpo" in check.Page((folder / "plugins.html").read_text("utf-8")).ids
    assert "compute_loss" in check.Page((folder / "hooks.html").read_text("utf-8")).ids
    assert "Batch" in check.Page((folder / "api.html").read_text("utf-8")).ids
    assert 'href="/docs/index.html"' in (folder / "404.html").read_text("utf-8")
    places = [place.text for place in ET.parse(folder / "sitemap.xml").iter() if place.tag.endswith("loc")]
    assert "https://example.org/docs/config.html" in places and len(places) > 100
