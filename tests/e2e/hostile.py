"""Build hostile artifacts for tests: payloads that leave a trace if they run, and files with false headers."""

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
"""A number with more digits than Python converts to an integer."""
TRACE = "TUNESMITH_CANARY"


class Payload:
    """An object that creates a folder when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@dataclass
class Canary:
    """A payload in several forms, which leaves a trace when it runs."""

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
    """Return the bytes of a .safetensors file with any header and header length."""
    return struct.pack("<Q", len(header) if length is None else length) + header + content


def tensors(**spans: tuple[int, int]) -> bytes:
    """Return a header of float32 vectors, each with its first and last byte (exclusive)."""
    entries = {
        name: {"dtype": "F32", "shape": [(b - a) // 4], "data_offsets": [a, b]} for name, (a, b) in spans.items()
    }
    return json.dumps(entries).encode()


def link(path: Path, target: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def project(source: Path, folder: Path, **keys: Any) -> Path:
    """Copy the model and data of a run to a folder, and write its YAML there."""
    shutil.copytree(source, folder, dirs_exist_ok=True, symlinks=True)
    return tiny.sft_config(folder, **{"max_steps": 1, **keys})


def tunesmith(*words: str | Path) -> Result:
    """Run a command in this process, and check that it ends with an exit code and without a traceback."""
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def judge(result: Result, canary: Canary, code: int, name: str) -> None:
    """Check that a command ended with an exit code, that an error names the file, and that no payload ran."""
    assert not canary.dropped
    assert result.exit_code == code, result.output
    assert code == 0 or name in result.output, result.output
