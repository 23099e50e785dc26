"""Functions, files and packages stay small enough to read."""

from __future__ import annotations

import ast
import io
import tokenize
from pathlib import Path

import pytest

from tests.repo.source import CORE, docstrings, plugin_folders, python_files, short, toml, tree

FILE_LINES = 300
FUNCTION_LINES = 60
CODE_LINES = {"core": 6690, "engine": 10_050, "testing": 1500}
"""The maximum lines of code of the core, and of the engine, without comments and docstrings.

Before the seams were rebuilt, both had 3,400. The core grew by declared hooks, offers, models by name, metadata checks
and the lives of plugins, and by rewards that are found without running them; the engine by rounds (0.7k), generation
(0.6k), heads, parallelism and the rehearsal. Then came the Python API, output streams, checks that find faults before a
run, and in the engine locks, signals and lost processes, and what a run says of itself. Optimizers with weights, rates
and states of their own took 150 lines, and reward functions in processes of their own 600. Opening a
saved model, so that every command which uses one loads it as it was trained, took 200. What six trackers share took
250: a process for each, whose service may fail or hang, and the limits of time for it.

To run on many processes, the engine took 2,100: 650 for data that is prepared as shards by all processes and continued
after a kill, 400 for sharded and asynchronous checkpoints and a streamed export, 280 for what a process spends its time
on, model FLOPs, and the account of memory that ran out, 260 for divided layers and experts, 160 for launchers, 140 for
packs that are divided, 120 for order and packing in arrays, and 110 for what each process keeps and sends.

tunesmith.testing is counted apart from the core.
"""
PYPROJECT_LINES = 25
TESTING = CORE / "testing"
NOT_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}


def lines(path: Path) -> int:
    return len(path.read_text("utf-8").splitlines())


def code_lines(path: Path) -> int:
    """Return the number of lines with code: without blank lines, comments and docstrings."""
    numbers: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(path.read_text("utf-8")).readline):
        if token.type not in NOT_CODE:
            numbers |= set(range(token.start[0], token.end[0] + 1))
    for node in docstrings(tree(path)):
        numbers -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(numbers)


def test_code_lines_excludes_comments_docstrings_and_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "example.py"
    path.write_text(
        '"""Two\nlines."""\n\n# why\nx = """a\nb"""  # because\n\n\ndef f():\n    """One."""\n    return x\n'
    )
    assert code_lines(path) == 4


def test_no_file_is_longer_than_300_lines() -> None:
    long = [f"{short(path)}: {lines(path)}" for path in python_files() if lines(path) > FILE_LINES]
    assert not long, "\n".join(long)


def test_no_function_is_longer_than_60_lines() -> None:
    long = []
    for path in python_files("core", "engine", "plugins", "contrib", "tools", "bench"):
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > FUNCTION_LINES:
                    long.append(f"{short(path, node.lineno)} {node.name}: {length}")
    assert not long, "\n".join(long)


@pytest.mark.parametrize(("folder", "limit"), CODE_LINES.items())
def test_package_stays_within_its_line_limit(folder: str, limit: int) -> None:
    paths = python_files("core" if folder == "testing" else folder)
    counts = {short(p): code_lines(p) for p in paths if p.is_relative_to(TESTING) == (folder == "testing")}
    total = sum(counts.values())
    table = "\n".join(f"{count:5} {name}" for name, count in sorted(counts.items(), key=lambda item: -item[1]))
    print(f"{folder}: {total} lines of code, {limit} at most")
    assert 0 < total <= limit, f"{folder}/ has {total} lines, the maximum is {limit}\n{table}"


def test_plugin_pyproject_is_short_and_configures_only_the_build() -> None:
    for folder in plugin_folders():
        path = folder / "pyproject.toml"
        assert lines(path) <= PYPROJECT_LINES, f"{short(path)}: {lines(path)} lines, the maximum is {PYPROJECT_LINES}"
        assert set(toml(path).get("tool", {})) <= {"hatch"}, (
            f"{short(path)}: configure tools in the root pyproject.toml"
        )
