"""The links, make targets and example configs in Markdown pages are valid."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.repo.source import ROOT, files, short
from tunesmith import load_config

PAGES = [path for path in files() if path.suffix == ".md"]
LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")


def without_code(text: str) -> str:
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))


@pytest.mark.parametrize("page", PAGES, ids=short)
def test_relative_links_point_to_existing_files(page: Path) -> None:
    links = [link for link in LINK.findall(without_code(page.read_text("utf-8"))) if "://" not in link]
    broken = [link for link in links if not (page.parent / link).exists()]
    assert not broken, f"{short(page)}: {', '.join(broken)}"


def test_make_targets_on_pages_exist() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M))
    for page in PAGES:
        named = set(re.findall(r"(?:^|`)make ([\w-]+)", page.read_text("utf-8"), re.M))
        assert named <= targets, f"{short(page)}: {', '.join(named - targets)}"


def test_readme_example_is_a_valid_config(tmp_path: Path) -> None:
    blocks = re.findall(r"^```yaml\n(.*?)^```", (ROOT / "README.md").read_text("utf-8"), re.M | re.S)
    assert len(blocks) == 1
    path = tmp_path / "run.yaml"
    path.write_text(blocks[0], encoding="utf-8")
    load_config(path)
