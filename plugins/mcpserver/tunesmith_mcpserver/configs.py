"""Load the config of a call, after refusing paths outside of the folders of the server, and code."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tunesmith.api import load, start
from tunesmith.config.values import YamlText
from tunesmith.config.yamlfile import MAX_BYTES, Document, KeyPath, parse, read
from tunesmith.errors import ConfigError, Problem, SafetyError
from tunesmith.run import Run

IN_MEMORY = ("dataset_prepared_path=null", "dataset_num_proc=1")
"""The overrides with which data is prepared in memory, by this process."""


def inside(path: str | Path, roots: Sequence[Path]) -> bool:
    """Return True if a path, with its links followed, is in one of the folders."""
    real = Path(os.path.realpath(path))
    return any(real == root or root in real.parents for root in roots)


def below(path: str, roots: Sequence[Path]) -> Path:
    """Return a path of an argument, relative to the first folder. Raises SafetyError if it leads out of them."""
    target = roots[0] / path
    if not inside(target, roots):
        help = "start the server with --root and that folder"
        raise SafetyError(f"{path} is outside of the folders of this server", where="path", code="safety", help=help)
    return target


def open_config(
    roots: Sequence[Path], path: str | None, yaml: str | None, overrides: Sequence[str], check_rows: bool = True
) -> Run:
    """Return the run of a config, after all checks. Raises what `start` raises, and SafetyError for what is refused."""
    if (path is None) == (yaml is None):
        raise ConfigError("give either path or yaml", where="arguments", code="usage", help='{"path": "run.yaml"}')
    if yaml is not None and len(yaml.encode()) > MAX_BYTES:
        raise SafetyError(f"the text has more than {MAX_BYTES:,} bytes", where="yaml", code="yaml-size")
    if path is not None:
        below(path, roots)  # the name stays relative, as on the command line
        source, folder, document = Path(path), (roots[0] / path).parent, read(Path(path), overrides)
        refuse(document, folder, roots)
        return start(load(source, overrides), check_rows=check_rows)
    text = YamlText(str(yaml), "yaml", roots[0])
    refuse(parse(text.text, text.name, overrides), roots[0], roots)
    return start(load(text, overrides), check_rows=check_rows)


def refuse(document: Document, folder: Path, roots: Sequence[Path]) -> None:
    """Raise SafetyError for everything in a config that this server does not do: run code, leave its folders."""
    problems = []
    for path, value in strings(document.values, ()):
        reason, help = why_refused(path, value, folder, roots)
        if reason:
            problems.append(Problem(reason, document.where(path, value=True), "safety", help))
    remote = document.values.get("trust_remote_code")
    if remote is not None and remote is not False:
        message = "this server runs no code of models"
        problems.append(Problem(message, document.where(("trust_remote_code",)), "safety", COMMAND_LINE))
    if problems:
        raise SafetyError(problems)


COMMAND_LINE = "check this config on the command line, after you have read the file"


def strings(value: Any, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    """Yield each text of a config with its path, keys of mappings included."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield (*path, key), str(key)
            yield from strings(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from strings(item, (*path, index))
    elif isinstance(value, str):
        yield path, value


def why_refused(path: KeyPath, value: str, folder: Path, roots: Sequence[Path]) -> tuple[str, str]:
    """Return why a text of a config is refused, and a help; two empty texts if it is not."""
    name = ".".join(map(str, path))
    if path[0] == "plugins" and value.endswith(".py"):
        return f"{name}: this server runs no code of files: {value}", COMMAND_LINE
    if "type" in path and ".py" in value:
        return f"{name}: this server runs no code of files: {value}", COMMAND_LINE
    if leads_out(value, folder, roots):
        return (
            f"{name}: {value} is outside of the folders of this server",
            "start the server with --root and that folder",
        )
    return "", ""


def leads_out(value: str, folder: Path, roots: Sequence[Path]) -> bool:
    """Return True if a text is a path that leads out of the folders: absolute, with `..`, or through a link."""
    text = value.partition("://")[2] or value
    text = text.partition(".py:")[0] + ".py" if ".py:" in text else text
    if not text or "\n" in text or "\0" in text or len(text) > 4096:
        return False
    for base in (roots[0], folder):
        target = os.path.join(base, text)
        looks = text.startswith(("/", "\\")) or ".." in Path(text).parts
        if (looks or os.path.lexists(target)) and not inside(target, roots):
            return True
    return False
