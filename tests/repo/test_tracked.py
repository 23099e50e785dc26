"""What a clone contains is the same for everybody: no package servers, no paths of one machine, no lock file."""

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
    found = []
    for path in files():
        try:
            text = path.read_text("utf-8")
        except UnicodeDecodeError:
            continue
        found += [
            f"{short(path, n)}: {line.strip()}" for n, line in enumerate(text.split("\n"), 1) if pattern.search(line)
        ]
    return found


@pytest.mark.parametrize("pattern", [INDEX, MACHINE], ids=["package index", "path of one machine"])
def test_no_file_names_a(pattern: re.Pattern[str]) -> None:
    found = matches(pattern)
    assert not found, "\n".join(found)


def test_the_patterns_find_what_they_look_for() -> None:
    assert MACHINE.search("model: " + "/".join(["", "home", "me", "model"]))
    assert INDEX.search("extra-index-" + "url = x")


def test_no_lock_file_and_no_large_file_is_tracked() -> None:
    assert not [short(path) for path in files() if path.name == "uv.lock"]
    assert not [short(path) for path in files() if path.stat().st_size > 1_000_000]


def test_commands_of_the_repository_are_executable() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
