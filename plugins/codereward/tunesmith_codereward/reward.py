"""The reward `code`: the share of a row's tests that the code of a completion passes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tunesmith.completions import Completion, column_of, text_of
from tunesmith_codereward.cases import RowTests, read_tests
from tunesmith_codereward.sandbox import Limits, passed_asserts, passed_cases

FENCE = re.compile(r"([ \t]*)(`{3,}|~{3,})[ \t]*([\w+.-]*)(.*)")
"""A line that may open a block: its indentation, its marks, a language, and the rest."""
PYTHON = ("python", "py", "python3")
LONGEST = 3600.0
"""Seconds. Limits of the system can't be infinite: with one, all code would fail."""


def code(
    completions: Sequence[Completion],
    *,
    column: str = "tests",
    partial: bool = True,
    timeout: float = 5.0,
    memory: int = 512,
    processes: int = 4,
    isolation: str = "kernel",
    **columns: Any,
) -> list[float | None]:
    """Return the share of tests of its row that the code of each completion passes.

    Args:
        completions: texts, or conversations. The code is the last fenced block that is marked as Python; without one,
            the last block without a language.
        column: the column with the tests: assert statements, or cases such as {"input": "1 2", "output": "3"}. Rows
            without tests abstain.
        partial: return the share of tests; if False, 1.0 if all pass, otherwise 0.0.
        timeout: seconds for one process: all assert statements, or one case.
        memory: MiB of address space of a process.
        processes: how many run at the same time.
        isolation: "kernel" needs the fences of Linux, "python" also runs code where they are missing.

    Raises ValueError for options or tests that make no sense, EnvironmentProblem if the kernel has no fences.
    """
    if isolation not in ("kernel", "python"):
        raise ValueError(f"isolation: {isolation!r}: write kernel or python")
    if not 0 < timeout <= LONGEST or memory < 64 or processes < 1:
        message = f"timeout must be positive and at most {LONGEST:g} seconds, memory at least 64 MiB, and processes at"
        raise ValueError(f"{message} least 1")
    limits = Limits(timeout, memory << 20, isolation == "kernel")

    def score(completion: Completion, tests: RowTests | None) -> float | None:
        if tests is None:
            return None
        source = last_block(text_of(completion))
        if source is None:
            return 0.0
        passed, total = (
            (passed_asserts(source, tests.asserts, limits), len(tests.asserts))
            if tests.asserts
            else (passed_cases(source, tests.cases, limits), len(tests.cases))
        )
        return passed / total if partial else float(passed == total)

    # All tests are read before the first process starts: an error in a row is not the end of half of a batch.
    tests = [read_tests(value) for value in column_of(columns, column, completions)]
    with ThreadPoolExecutor(processes) as pool:
        return list(pool.map(score, completions, tests))


def last_block(text: str) -> str | None:
    """Return the code of a completion, after its last </think>; None if it has no fenced block that may be Python."""
    fenced = list(blocks(text.rpartition("</think>")[2]))
    python = [body for language, body in fenced if language in PYTHON]
    unmarked = [body for language, body in fenced if not language]
    return (python or unmarked or [None])[-1]


def blocks(text: str) -> Iterator[tuple[str, str]]:
    """Yield the language and the code of each fenced block of Markdown, without the indentation of its first line.

    A block ends with a line of the same marks, at least as many. Lines after an opening one that is not closed are
    searched for other blocks. No text takes long: lines are read again only for marks that no line before them had.
    """
    lines, place = text.split("\n"), 0
    unclosed: dict[str, int] = {}  # fewest marks, by kind, that no later line closes
    while place < len(lines):
        opening = FENCE.fullmatch(lines[place].rstrip())
        place += 1
        if not opening or ("`" in opening[2] and "`" in opening[4]):  # `code` within a line
            continue
        indent, marks, language = opening[1], opening[2], opening[3].lower()
        if len(marks) >= unclosed.get(marks[0], len(marks) + 1):
            continue
        closings = (n for n in range(place, len(lines)) if _closes(lines[n].strip(), marks))
        end = next(closings, None)
        if end is None:
            unclosed[marks[0]] = len(marks)
            continue
        yield language, "".join(f"{line.removeprefix(indent)}\n" for line in lines[place:end])
        place = end + 1


def _closes(line: str, marks: str) -> bool:
    return len(line) >= len(marks) and not line.strip(marks[0])
