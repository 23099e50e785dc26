"""The tokenizer of the examples is the one that its script writes from their data."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_script_reproduces_the_committed_tokenizer(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(ROOT / "tools/tiny_tokenizer.py"), str(tmp_path)], check=True)
    written = (tmp_path / "tokenizer.json").read_bytes()
    assert written == (ROOT / "examples/tiny/tokenizer.json").read_bytes(), "run python tools/tiny_tokenizer.py"
