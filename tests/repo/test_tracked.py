"""The repository has no package indexes, no machine-specific paths, no lock file and no large files."""

from __future__ import annotations

import os
import re

import pytest

from tests.repo.source import ROOT, files, short

INDEX = re.compile(
    r"pypi\.org/simple|pythonhosted\.org|download\.pytorch\.org|(?:extra-)?index-url\s*[=:]|\[\[tool\.uv\.index\]\]"
)
MACHINE = re.compile(r"(?<![\w.$}~])/(?:home|tmp|root|Users|mnt)/[\w.-]")


def matches(pattern: re.Pattern[str]) -> list[str]:
    """Return file, line and text of each line of the repository that matches a pattern."""
    hits = []
    for path in files():
        try:
            text = path.read_text("utf-8")
        except UnicodeDecodeError:
            continue
        hits += [
            f"{short(path, n)}: {line.strip()}" for n, line in enumerate(text.split("\n"), 1) if pattern.search(line)
        ]
    return hits


@pytest.mark.parametrize("pattern", [INDEX, MACHINE], ids=["package index", "path of one machine"])
def test_no_file_has_a(pattern: re.Pattern[str]) -> None:
    lines = matches(pattern)
    assert not lines, "\n".join(lines)


def test_patterns_match_examples() -> None:
    assert MACHINE.search("model: " + "/".join(["", "home", "me", "model"]))
    assert INDEX.search("extra-index-" + "url = x")


def test_no_lock_file_and_no_large_file_is_tracked() -> None:
    assert not [short(path) for path in files() if path.name == "uv.lock"]
    assert not [short(path) for path in files() if path.stat().st_size > 1_000_000]


def test_ci_script_is_executable() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
