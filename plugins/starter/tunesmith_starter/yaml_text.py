"""Write the parts of a config as YAML with comments."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from tunesmith_starter.compose import Part

COLUMN = 33
"""The column of comments, counted from 0."""
LONGEST = 120


class _Dumper(yaml.SafeDumper):
    """A dumper that keeps every text in one line, and quotes those that begin like a number.

    YAML 1.2 reads 1e5 as a number, and YAML 1.1, which PyYAML writes, does not.
    """


def _quoted(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = '"' if not text.isprintable() else "'" if re.match(r"[-+.]?\d", text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _quoted)


def text_of(title: Sequence[str], parts: Sequence[Part]) -> str:
    """Return the text of a config: comment lines, then the parts with an empty line between them."""
    lines = [f"# {in_one_line(line)}" for line in title]
    for part in parts:
        lines.append("")
        for line in part:
            if line.key in ("datasets", "pretraining_dataset"):
                lines += [f"{line.key}:", *_entries(line.value, line.comments or {})]
            else:
                lines.append(with_comment(f"{line.key}: {scalar(line.value)}", line.comment))
    return "\n".join(lines) + "\n"


def _entries(values: Sequence[Mapping[str, Any]], comments: Mapping[str, str]) -> list[str]:
    """Return the lines of dataset entries. The comments are those of the first."""
    lines = []
    for number, entry in enumerate(values):
        for index, (key, value) in enumerate(entry.items()):
            comment = comments.get(key, "") if number == 0 else ""
            lines.append(with_comment(f"  {'-' if index == 0 else ' '} {key}: {scalar(value)}", comment))
    return lines


def scalar(value: Any) -> str:
    """Return a value as YAML in one line."""
    if isinstance(value, float) and 0 < abs(value) < 0.001:
        digits, _, power = f"{value:e}".partition("e")
        return f"{float(digits):g}e{int(power)}"
    text = yaml.dump(value, Dumper=_Dumper, default_flow_style=True, allow_unicode=True, width=10**6, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")


def in_one_line(text: str) -> str:
    """Return a text for a comment. Names of columns are in it, and a line break in one would end the comment."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def with_comment(line: str, comment: str) -> str:
    """Return a line with a comment behind it, or above it if the line would be too long."""
    if not comment:
        return line
    comment = in_one_line(comment)
    full = f"{line:<{COLUMN - 1}} # {comment}"
    if len(full) <= LONGEST:
        return full
    indent = " " * (len(line) - len(line.lstrip()))
    above = textwrap.wrap(comment, LONGEST, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")
    return "\n".join([*above, line])
