"""What every test shares: one thread per process, no pickles, and the data that lies outside the repository."""

from __future__ import annotations

import atexit
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.startup import nopickle

# Before torch is imported anywhere: with two test workers on few cores, more threads only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
_opened = Path(tempfile.mkstemp(prefix="tunesmith-pickles-")[1])
atexit.register(_opened.unlink, missing_ok=True)
os.environ[nopickle.LOG] = str(_opened)
os.environ["PYTHONPATH"] = os.pathsep.join(  # of the processes that tests start
    filter(None, [str(Path(nopickle.__file__).parent), os.environ.get("PYTHONPATH")])
)
nopickle.install()


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Hold torch at the number of threads asked for, also after a test changed it; torch is not imported for this."""
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "set_num_threads"):
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


@pytest.fixture(autouse=True)
def no_pickle_is_opened() -> Iterator[None]:
    """Fail a test in which anyone opened a pickle, in any process, though the error was swallowed."""
    before = _opened.stat().st_size
    yield
    if _opened.stat().st_size != before:
        pytest.fail(_opened.read_text("utf-8")[before:], pytrace=False)


@pytest.fixture
def pickles_may_be_tried() -> Iterator[None]:
    """For tests of the guard itself: what it refused in them is not held against them."""
    yield
    os.truncate(_opened, 0)


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder that TUNESMITH_TEST_DATA names: gsm8k/, text/, tokenizer-gpt2-chatml/."""
    folder = os.environ.get("TUNESMITH_TEST_DATA")
    if not folder:
        pytest.skip("TUNESMITH_TEST_DATA names no folder of test data")
    path = Path(folder)
    assert path.is_dir(), f"TUNESMITH_TEST_DATA={folder} is no folder"
    return path
