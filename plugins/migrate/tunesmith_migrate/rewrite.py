"""Rewrite the text of a config key by key: what is the same stays as it is written, with its comments."""

from __future__ import annotations

import copy
import re
import tempfile
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tunesmith import ConfigError, TunesmithError
from tunesmith.api import load
from tunesmith.config.keys import UNREAD
from tunesmith.config.translation import Translated, translate
from tunesmith.config.yamlfile import read
from tunesmith.errors import Problem
from tunesmith.plugins.discovery import installed
from tunesmith.redact import MASK, clean, redact

LONGEST = 118
SECRET = re.compile(r"(api_key|token|secret|password)$")
"""Ends of the names of keys whose value is not copied into a comment."""
ROUNDS = 10
"""Most times that keys are turned into comments. A key may be without effect only after another one is."""


@dataclass
class Result:
    """A new config: its text, the counts of its keys, and the error that it still has."""

    text: str
    translated: int
    refused: int
    empty: int
    problems: TunesmithError | None


@dataclass
class Block:
    """The lines of a top-level key, with the comments above it."""

    key: str
    above: list[str]
    lines: list[str]


def rewrite(path: Path, tool: str) -> Result:
    """Return the config of a file as one of Tunesmith. Raises ConfigError if the file is not readable YAML."""
    document = read(path)
    before = copy.deepcopy(document.values)
    translated, contradictions = translate(document, installed(), tool)
    after = document.values
    text = path.read_text("utf-8")
    blocks = blocks_of(text, list(before))
    if blocks is None:  # flow style, or anchors and merges: the values, without the comments of the file
        blocks = [Block(key, [], dump(key, before[key])) for key in before]
    notes: dict[str, list[Translated]] = {}
    for one in translated:
        notes.setdefault(re.split(r"[.:]", one.key)[0], []).append(one)
    lines = [
        f"# Rewritten by `tunesmith migrate` from {path.name}. Lines that begin with `# was` are those of the original."
    ]
    written: set[str] = set()
    for block in blocks:
        key = block.key
        if before[key] is None and key not in after:
            continue
        lines += block.above
        for one in notes.get(key, []):
            lines += comment(was(one, before), str(one), one.speed)
        places = {one.where for one in notes.get(key, [])}  # a key that expresses another one has its place
        new = [name for name in after if name not in {*before, *written} and document.where((name,)) in places]
        if key in after and before[key] == after[key]:
            lines += block.lines if after[key] is not None else []
        elif key in after:
            lines += dump(key, after[key])
        for name in new:
            lines += dump(name, after[name])
        written |= {key, *new}
    for name in after.keys() - written:
        lines += dump(name, after[name]) if after[name] is not None else []
    lines, refused, error = without_unread(lines, path)
    empty = sum(value is None for value in before.values())
    if contradictions and error is None:
        error = TunesmithError(contradictions)
    return Result("\n".join(lines).rstrip() + "\n", len(translated), refused, empty, error)


def blocks_of(text: str, keys: list[str]) -> list[Block] | None:
    """Return the blocks of a file in block style; None for one with anchors, aliases, merges or a flow mapping."""
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    events = list(yaml.parse(text, Loader=yaml.SafeLoader))
    if node.flow_style or any(getattr(event, "anchor", None) for event in events):
        return None
    lines = text.splitlines()
    starts = [pair[0].start_mark.line for pair in node.value]
    blocks, end = [], 0
    for key, start, stop in zip(keys, starts, [*starts[1:], len(lines)], strict=True):
        last = stop
        while last > start + 1 and (not lines[last - 1].strip() or lines[last - 1].startswith("#")):
            last -= 1  # empty lines and comments above the next key
        above = [line for line in lines[end:start] if line.strip() != "---"]
        blocks.append(Block(key, above, lines[start:last]))
        end = last
    return blocks


def was(one: Translated, before: dict[str, Any]) -> str:
    """Return what the file has for a translated key: `key: value`."""
    key = one.key.split(": ")[0]
    value: Any = before
    for part in key.split("."):
        value = value[int(part)] if isinstance(value, list) else value[part] if isinstance(value, dict) else None
    parts = key.split(".")
    value = clean({parts[-1]: value})[parts[-1]]  # a secret is not copied
    if SECRET.search(parts[-1]) and value:
        value = MASK
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True).split("\n")[0]
    return f"{key}: {text}"


def comment(text: str, reason: str, speed: bool = False) -> list[str]:
    """Return the comment of a key that is written differently."""
    reason = f"{'speed or memory only: ' if speed else ''}{reason}"
    line = redact(f"# was {text}  ({reason})")
    return [line] if len(line) <= LONGEST else [redact(f"# was {text}"), *wrapped(f"({reason})", "#     ")]


def wrapped(text: str, start: str) -> list[str]:
    """Return a text as lines that begin with `start`."""
    return textwrap.wrap(redact(text), LONGEST, initial_indent=start, subsequent_indent=start, break_long_words=False)


def dump(key: str, value: Any) -> list[str]:
    """Return the lines of a key."""
    text = yaml.safe_dump({key: value}, sort_keys=False, allow_unicode=True, default_flow_style=False, width=LONGEST)
    return text.rstrip("\n").split("\n")


def without_unread(lines: list[str], path: Path) -> tuple[list[str], int, TunesmithError | None]:
    """Turn keys that nothing reads into comments with the reason. Return the lines, their number, and what is left."""
    refused = 0
    for _ in range(ROUNDS):
        error = problems_of(lines, path)
        unread = [problem for problem in error.problems if problem.code in UNREAD] if error else []
        if not unread:
            return lines, refused, error
        refused += len(unread)
        for problem in sorted(unread, key=line_of, reverse=True):
            lines = commented(lines, line_of(problem) - 1, problem)
    return lines, refused, problems_of(lines, path)


def problems_of(lines: list[str], path: Path) -> TunesmithError | None:
    """Return the error of a config with these lines, with the name of the original; None if it has none."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / path.name
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        try:
            config = load(file)
            if notes := config.translated:  # of keys that are accepted, and that nothing reads
                return ConfigError([Problem(f"{one.key}: {one.note}", one.where, "unknown-key") for one in notes])
            if not (config.datasets or config.streamed):
                missing = Problem("nothing to train on", f"{path.name}:1:1", "no-data", "write datasets: ...")
                return ConfigError([missing])
        except TunesmithError as error:
            for problem in error.problems:
                object.__setattr__(problem, "where", str(problem.where).replace(str(file), path.name))
            return error
    return None


def line_of(problem: Problem) -> int:
    """Return the line of a problem, from 1."""
    match = re.search(r":(\d+)(:\d+)?$", str(problem.where))
    return int(match[1]) if match else 1


def commented(lines: list[str], at: int, problem: Problem) -> list[str]:
    """Turn a key and what is below it into comments, after a comment with the reason and the advice."""
    indent = len(lines[at]) - len(lines[at].lstrip())
    end = at + 1
    while (
        end < len(lines)
        and lines[end].strip()
        and (
            len(lines[end]) - len(lines[end].lstrip()) > indent
            or (lines[end].startswith(" " * indent + "- ") and indent == 0)
        )
    ):
        end += 1
    advice = f"; {problem.help}" if problem.help else ""
    reason = wrapped(f"not used: {problem.message}{advice}", f"{' ' * indent}# ")
    hidden = [f"{line[:indent]}# {without_secret(line[indent:])}" for line in lines[at:end]]
    return [*lines[:at], *reason, *hidden, *lines[end:]]


def without_secret(line: str) -> str:
    """Return a line of YAML without the value of a key that holds a secret."""
    key, colon, value = line.partition(":")
    return f"{key}: {MASK}" if colon and value.strip() and SECRET.search(key.strip()) else redact(line)
