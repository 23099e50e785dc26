"""Append completions to a file, so that a command that was killed continues where it stopped."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from tunesmith import ConfigError, EnvironmentProblem

WHERE = "command line (--output)"
AGAIN = "write --overwrite to replace the file, or --output with another one"


def settings_path(path: Path) -> Path:
    """Return the file that records what an output was generated from."""
    return path.with_name(f"{path.name}.settings.json")


class Output:
    """A JSON Lines file that grows by groups of lines.

    The file next to it, NAME.settings.json, records model, prompts and options. They must be equal for the file to be
    continued. The file is locked while it is open.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], overwrite: bool = False):
        self.path, self.settings = path, json.loads(json.dumps(settings))
        if path.is_dir():
            raise ConfigError(f"{path} is a folder", where=WHERE, help="name a file: --output OUT.jsonl", code="usage")
        if path.exists() and path.stat().st_size and not overwrite:
            self._check()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.file: BinaryIO = path.open("ab+")
        except OSError as error:
            message = f"{path} can't be written: {error.strerror}"
            raise EnvironmentProblem(message, where=WHERE, help="choose another place", code="disk") from error
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.file.close()
            message = f"{path} is being written by another command"
            raise EnvironmentProblem(message, where=WHERE, help="wait for it", code="in-use") from None
        if overwrite:
            self.file.truncate(0)
        self._record()

    def _check(self) -> None:
        """Raise ConfigError if the existing file is not the beginning of what would be written now."""
        try:
            recorded = json.loads(settings_path(self.path).read_text("utf-8"))
        except FileNotFoundError:
            message = f"{self.path} exists, and this command did not write it"
            raise ConfigError(message, where=WHERE, help=AGAIN, code="usage") from None
        except (OSError, ValueError) as error:
            message = f"{settings_path(self.path)} can't be read: {error}"
            raise ConfigError(message, where=WHERE, help=AGAIN, code="usage") from None
        changed = differences(recorded, self.settings)
        if changed:
            message = f"{self.path} was generated with other settings: {'; '.join(changed)}"
            raise ConfigError(message, where=WHERE, help=f"{AGAIN}; or use the same settings to continue", code="usage")

    def _record(self) -> None:
        """Write the settings at once, so that they are complete or absent."""
        path = settings_path(self.path)
        partial = path.with_name(f".{path.name}.partial")
        partial.write_text(json.dumps(self.settings, indent=1) + "\n", encoding="utf-8")
        os.replace(partial, path)

    def complete_lines(self) -> int:
        """Return the number of lines that end with a line break."""
        self.file.seek(0)
        return sum(chunk.count(b"\n") for chunk in iter(lambda: self.file.read(1 << 20), b""))

    def keep(self, lines: int) -> None:
        """Drop everything after so many lines."""
        self.file.seek(0)
        size = 0
        for _ in range(lines):
            size += len(self.file.readline())
        self.file.truncate(size)

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append rows, and flush them to the disk."""
        try:
            self.file.write(b"".join(map(encoded, rows)))
            self.file.flush()
            os.fsync(self.file.fileno())
        except OSError as error:
            message = f"{self.path} can't be written: {error.strerror}"
            help = "make room, and run the command again: it continues"
            raise EnvironmentProblem(message, where=WHERE, help=help, code="disk") from error

    def close(self) -> None:
        self.file.close()


def encoded(row: Mapping[str, Any]) -> bytes:
    """Return a row as a line of JSON. Text with halves of surrogate pairs is escaped, since UTF-8 has none."""
    try:
        return json.dumps(row, ensure_ascii=False).encode("utf-8") + b"\n"
    except UnicodeEncodeError:
        return json.dumps(row).encode("utf-8") + b"\n"


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """Return what changed between two JSON values, such as "options.temperature was 1.0, and is 0.7"."""
    if isinstance(old, dict) and isinstance(new, dict):
        names = sorted(old.keys() | new.keys())
        return [line for name in names for line in differences(old.get(name), new.get(name), f"{path}.{name}")]
    if old == new:
        return []
    return [f"{path.removeprefix('.')} was {json.dumps(old)}, and is {json.dumps(new)}"]
