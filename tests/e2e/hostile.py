"""What hostile artefacts are made of: payloads that leave a trace if they ever run, and files that lie."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from tests import tiny
from tunesmith.cli import main

DEEP = "[" * 100_000 + "]" * 100_000
DIGITS = "9" * 5000
"""A number that Python refuses to read."""
TRACE = "TUNESMITH_CANARY"


class Payload:
    """Unpickled, it makes a folder."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@dataclass
class Canary:
    """A payload in several forms, and whether it ran."""

    path: Path

    @property
    def pickle(self) -> bytes:
        return pickle.dumps(Payload(self.path))

    @property
    def code(self) -> str:
        return f"import os\nos.environ[{TRACE!r}] = '1'\nos.makedirs({str(self.path)!r}, exist_ok=True)\n"

    @property
    def dropped(self) -> bool:
        return self.path.exists() or TRACE in os.environ


def edit(path: Path, **changes: Any) -> None:
    """Set keys of a JSON file."""
    content = json.loads(path.read_text("utf-8")) if path.exists() else {}
    path.write_text(json.dumps(content | changes), encoding="utf-8")


def weights_file(header: bytes, content: bytes = b"", length: int | None = None) -> bytes:
    """A .safetensors file of any header."""
    return struct.pack("<Q", len(header) if length is None else length) + header + content


def tensors(**spans: tuple[int, int]) -> bytes:
    """A header of float32 vectors at these bytes."""
    entries = {
        name: {"dtype": "F32", "shape": [(b - a) // 4], "data_offsets": [a, b]} for name, (a, b) in spans.items()
    }
    return json.dumps(entries).encode()


def link(path: Path, target: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def project(source: Path, folder: Path, **keys: Any) -> Path:
    """A copy of a run's model and data in a folder, and its YAML there."""
    shutil.copytree(source, folder, dirs_exist_ok=True, symlinks=True)
    return tiny.sft_config(folder, **{"max_steps": 1, **keys})


def tunesmith(*words: str | Path) -> Result:
    """A command in this process; it ends with a code and without a traceback."""
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def judge(result: Result, canary: Canary, code: int, name: str) -> None:
    """It ended with this code; where it was refused, by an error that names the file; and nothing ran."""
    assert not canary.dropped
    assert result.exit_code == code, result.output
    assert code == 0 or name in result.output, result.output
