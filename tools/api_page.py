"""Write docs/api.md: the signature and the docstring of every name that `tunesmith` exports."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
import textwrap
from pathlib import Path

from pieces import page
from reference_page import ROOT, docstrings, exported, group_of

HEAD = """
The signatures and docstrings of what `tunesmith` exports, as in the source. [reference.md](reference.md) is the short
list, and has the names of metrics. Letters in brackets are the sizes of the dimensions of an array: [N] is one
number for each of N scored tokens.
"""
SECTION = re.compile(r"^(Args|Returns|Raises|Yields|Example|Examples|Shapes|Attributes):$")
WIDTH = 116


def source(module: str) -> Path:
    """Return the file of a module of the core or the engine."""
    parts = module.split(".")
    base = ROOT / ("engine" if parts[0] == "tunesmith_engine" else "core")
    return base.joinpath(*parts).with_suffix(".py")


def signature(node: ast.FunctionDef) -> str:
    """Return the line `def name(...) -> ...` of a function, one argument per line if it is long."""
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    short = f"def {node.name}({ast.unparse(node.args)}){returns}"
    if len(short) <= WIDTH:
        return f"{short}: ..."
    return f"def {node.name}(\n" + "".join(f"    {part},\n" for part in split_arguments(node.args)) + f"){returns}: ..."


def split_arguments(arguments: ast.arguments) -> list[str]:
    """Return the arguments of a function, each as text."""
    text, parts, depth, start = ast.unparse(arguments), [], 0, 0
    for at, letter in enumerate(text):
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and not depth:
            parts.append(text[start:at].strip())
            start = at + 1
    return [*parts, text[start:].strip()]


def markdown(docstring: str) -> str:
    """Return a docstring as Markdown: `Args:` and its like become lists, and examples become code."""
    lines, result, at = inspect.cleandoc(docstring).split("\n"), [], 0
    while at < len(lines):
        if not (match := SECTION.match(lines[at])):
            result.append(lines[at])
            at += 1
            continue
        end = at + 1
        while end < len(lines) and (not lines[end] or lines[end].startswith(" ")):
            end += 1
        body = textwrap.dedent("\n".join(lines[at + 1 : end])).strip("\n")
        result.append(section(match[1], body))
        at = end
    return "\n".join(result).strip()


def section(title: str, body: str) -> str:
    """Return a section of a docstring. An entry begins at the margin, and its other lines are indented."""
    if title.startswith("Example"):
        return f"{title}:\n\n```python\n{body}\n```\n"
    entries: list[str] = []
    for line in body.split("\n"):
        if line.startswith(" ") and entries:
            entries[-1] += f" {line.strip()}"
        elif line:
            entries.append(line)
    entries = [re.sub(r"^(\*{0,2}[\w, .]+?): ", lambda match: f"`{match[1]}`: ", entry) for entry in entries]
    return f"{title}:\n\n" + "\n".join(f"- {entry}" for entry in entries) + "\n"


def class_code(node: ast.ClassDef) -> str:
    """Return the head of a class with its fields."""
    bases = ", ".join(ast.unparse(base) for base in node.bases)
    fields = [
        ast.unparse(part)
        for part in node.body
        if isinstance(part, ast.AnnAssign) and not is_private(ast.unparse(part.target))
    ]
    head = f"class {node.name}({bases})" if bases else f"class {node.name}"
    return head + (":\n" + textwrap.indent("\n".join(fields), "    ") if fields else ": ...")


def is_private(name: str) -> bool:
    return name.startswith("_")


def fields_text(node: ast.ClassDef) -> str:
    """Return a list of the fields that have a docstring of their own."""
    lines = []
    for part, following in zip(node.body, node.body[1:], strict=False):
        if (
            isinstance(part, ast.AnnAssign)
            and isinstance(following, ast.Expr)
            and isinstance(following.value, ast.Constant)
        ):
            text = " ".join(str(following.value.value).split())
            lines.append(f"- `{ast.unparse(part.target)}`: {text}")
    return "\n".join(lines)


def code(text: str) -> str:
    return f"```python\n{text}\n```"


def entry(module: str, name: str) -> str:
    """Return the section of a name: its anchor, signature, docstring, fields and methods."""
    parts = [f'### <a id="{name}"></a>{name}']
    nodes = [n for n in ast.parse(source(module).read_text("utf-8")).body if getattr(n, "name", "") == name]
    if not nodes:
        return "\n\n".join([*parts, markdown(docstrings(module)[name])])
    node = nodes[-1]
    if isinstance(node, ast.FunctionDef):
        return "\n\n".join([*parts, code(signature(node)), markdown(docstrings(module)[name])])
    if not isinstance(node, ast.ClassDef):
        return "\n\n".join([*parts, markdown(docstrings(module)[name])])
    parts += [code(class_code(node)), markdown(docstrings(module)[name]), fields_text(node)]
    for part in node.body:
        if isinstance(part, ast.FunctionDef) and not is_private(part.name) and (text := ast.get_docstring(part)):
            kinds = [ast.unparse(one) for one in part.decorator_list]
            kind = "".join(f"@{name}\n" for name in ("property", "classmethod", "staticmethod") if name in kinds)
            parts += [code(kind + signature(part)), markdown(text)]
    return "\n\n".join(filter(None, parts))


def formatted(text: str) -> str:
    """Return a page whose blocks of Python are formatted as `make lint` asks for."""
    command = [sys.executable, "-m", "ruff", "format", "--stdin-filename", "docs/api.md", "-"]
    return subprocess.run(command, input=text, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def api_page() -> str:
    """Return docs/api.md."""
    groups: dict[str, list[str]] = {}
    for module, name in sorted(exported(), key=lambda pair: pair[1].lower()):
        groups.setdefault(group_of(module), []).append(entry(module, name))
    sections = (f"## {group}\n\n" + "\n\n".join(entries) for group, entries in groups.items())
    return formatted(page("API", HEAD, *sections))
