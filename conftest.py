"""What every test shares: one thread per process, and the data that lies outside the repository."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

# Before torch is imported anywhere: with two test workers on few cores, more threads only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Hold torch at the number of threads asked for, also after a test changed it; torch is not imported for this."""
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "set_num_threads"):
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder that TUNESMITH_TEST_DATA names: gsm8k/, text/, tokenizer-gpt2-chatml/."""
    folder = os.environ.get("TUNESMITH_TEST_DATA")
    if not folder:
        pytest.skip("TUNESMITH_TEST_DATA names no folder of test data")
    path = Path(folder)
    assert path.is_dir(), f"TUNESMITH_TEST_DATA={folder} is no folder"
    return path
