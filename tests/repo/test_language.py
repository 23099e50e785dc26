"""Prose is plain American technical English, and a variable is named after the thing it holds."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.repo.source import ROOT, files, python_files, short, tree

PHRASES = {
    r"(?<!there )(?<!There )\b(is|are|was|were|be) no (?!longer|more|less|fewer|later|earlier|worse|better)[a-z]+": (
        "write 'is not a ...', 'unknown ...' or 'there is no ...'"
    ),
    r"\bstands? (twice|there|in the way|beside|alone|still)\b": "write 'duplicate', 'is', 'next to' or 'alone'",
    r"\bone's own\b": "write 'your own'",
    r"\bmend(s|ed|ing)?\b": "write 'fix'",
    r"\b(go|goes|going|went) on (from|with|where|at)\b": "write 'resume' or 'continue'",
    r"\bheld (to|against)\b": "write what is compared, or 'reference'",
    r"\bquacks?\b": "write 'has the same interface as'",
    r"\bnobody (else )?(knows|reads|asks|sees|says|has|owns|counts|expands)\b": "name what is unknown, unread or unset",
    r"\b(lacks|lacking)\b": "write 'is missing' or 'does not have'",
    r"\bas it stands\b": "write 'as is'",
    r"\bin step with\b": "write 'matches' or 'up to date with'",
    r"\bof (its|their) own accord\b": "write 'by itself'",
    r"\bkeeps? (another|others|the others) company\b": "write 'stays in sync with'",
    r"\bwithout a word\b": "write 'silently' or 'without consent'",
    r"\b(told|tell) apart\b": "write 'distinguish'",
    r"\bits affair\b|\bthe affair of\b": "write 'is up to' or 'belongs to'",
}
"""Phrases that read like a translation -> advice. They are searched in docstrings, comments, messages and pages."""
OPENINGS = {
    "What", "Which", "Whether", "Who", "Whose", "How", "Where", "When", "Why", "The", "A", "An", "One", "All", "Every",
    "Each", "Everyone", "Everything", "Nothing", "Returns", "From", "By", "In", "Of", "Under", "Its", "This", "That",
    "Those", "These", "Rows", "Names",
}  # fmt: skip
"""Words that a function's docstring does not begin with: it states an action, such as "Return the ..."."""
NAMES = {"told", "said", "found", "made", "mine", "whole"}
"""Variables that describe how a value came about, and not what it is."""
PYTHON = [path for path in python_files() if path != Path(__file__).resolve()]
PAGES = [path for path in files() if path.suffix in (".md", ".toml", ".yaml") and "CHANGELOG" not in path.name]


def group(path: Path) -> str:
    """Return the folder that a file is reported with: plugins/chat, core/tunesmith, docs, ..."""
    parts = path.relative_to(ROOT).parts
    return "/".join(parts[: 2 if parts[0] in ("plugins", "contrib", "core", "engine", "tests") else 1])


GROUPS = sorted({group(path) for path in PYTHON + PAGES})


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of each piece of prose in a file: comments and strings of Python, all of a page."""
    text = path.read_text("utf-8")
    if path.suffix != ".py":
        yield from enumerate(text.splitlines(), 1)
        return
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in (tokenize.COMMENT, tokenize.STRING):
            for offset, line in enumerate(token.string.splitlines()):
                yield token.start[0] + offset, line


def phrases(path: Path) -> list[str]:
    """Return a line for each phrase of a file that PHRASES refuses."""
    return [
        f"{short(path, number)}: {match[0]!r}: {advice}"
        for number, line in prose(path)
        for pattern, advice in PHRASES.items()
        if (match := re.search(pattern, line))
    ]


def openings(path: Path) -> list[str]:
    """Return a line for each docstring of a function that describes a result instead of stating an action."""
    wrong = []
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            property_like = any("property" in ast.unparse(decorator) for decorator in node.decorator_list)
            first = (ast.get_docstring(node) or "").split(" ")[0].rstrip(".,:;")
            if first in OPENINGS and not property_like and not node.name.startswith("test_"):
                wrong.append(f"{short(path, node.lineno)} {node.name}: the docstring begins with {first!r}")
            if property_like and first in ("What", "Which", "Whether", "Who", "How"):
                wrong.append(f"{short(path, node.lineno)} {node.name}: the docstring begins with {first!r}")
    return wrong


def names(path: Path) -> list[str]:
    """Return a line for each variable, parameter or function whose name is in NAMES."""
    wrong = set()
    for node in ast.walk(tree(path)):
        name = getattr(node, "arg", None) or getattr(node, "id", None) or getattr(node, "name", None)
        if name in NAMES:
            wrong.add(f"{short(path)}: {name}")
    return sorted(wrong)


@pytest.mark.parametrize("folder", GROUPS)
def test_no_phrase_reads_like_a_translation(folder: str) -> None:
    wrong = [line for path in PYTHON + PAGES if group(path) == folder for line in phrases(path)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("folder", GROUPS)
def test_a_docstring_states_an_action(folder: str) -> None:
    wrong = [line for path in PYTHON if group(path) == folder for line in openings(path)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("folder", GROUPS)
def test_a_variable_is_named_after_what_it_holds(folder: str) -> None:
    wrong = [line for path in PYTHON if group(path) == folder for line in names(path)]
    assert not wrong, "\n".join(wrong)


PLANTED = '''
def count(rows):
    """The number of rows."""
    found = len(rows)  # nobody knows it, so mend it
    raise ValueError(f"{found} is no number")
'''


def test_a_planted_sentence_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "planted.py"
    path.write_text(PLANTED, encoding="utf-8")
    monkeypatch.setattr("tests.repo.test_language.short", lambda path, line=0: f"{path.name}:{line}")
    assert [line.partition(": ")[0] for line in phrases(path)] == ["planted.py:4", "planted.py:4", "planted.py:5"]
    assert len(openings(path)) == 1 and names(path) == ["planted.py:0: found"]
