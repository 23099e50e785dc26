"""SECURITY.md is linked from the README and names only tests and files that exist."""

from __future__ import annotations

import ast
import re

from tests.repo.source import ROOT, tree

TEXT = (ROOT / "SECURITY.md").read_text("utf-8")
NAMED = re.findall(r"`([\w./-]+\.py)(?:::(\w+))?`", TEXT)


def test_readme_links_security_page() -> None:
    assert "](SECURITY.md)" in (ROOT / "README.md").read_text("utf-8")


def test_named_tests_and_files_exist() -> None:
    paths = [(path, name) for path, name in NAMED if "/" in path]
    assert len(paths) >= 15
    for path, name in paths:
        assert (ROOT / path).is_file(), path
        functions = {node.name for node in ast.walk(tree(ROOT / path)) if isinstance(node, ast.FunctionDef)}
        assert not name or name in functions, f"{path} has no {name}"


def test_every_guarantee_names_a_test() -> None:
    table = TEXT.partition("## What is guaranteed")[2].partition("## What is not")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ") and not line.startswith("| |")]
    assert len(rows) >= 12
    for row in rows:
        assert re.search(r"test_\w+\.py", row.split("|")[3]), row
