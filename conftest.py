"""Fixtures for every test: one thread per process, no pickles, and the test data outside the repository."""

from __future__ import annotations

import atexit
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.startup import nopickle

# Set before anything imports torch. With two test workers on few cores, more threads only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
_opened_log = Path(tempfile.mkstemp(prefix="tunesmith-pickles-")[1])
atexit.register(_opened_log.unlink, missing_ok=True)
os.environ[nopickle.LOG] = str(_opened_log)
os.environ["PYTHONPATH"] = os.pathsep.join(  # for the processes that tests start
    filter(None, [str(Path(nopickle.__file__).parent), os.environ.get("PYTHONPATH")])
)
nopickle.install()
# The same examples in every run, so that a failure is about the change. `make fuzz` draws new ones.
hypothesis.settings.register_profile("repeatable", derandomize=True, database=None, deadline=None)
hypothesis.settings.register_profile("fuzz", deadline=None, print_blob=True)
hypothesis.settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Reset torch to OMP_NUM_THREADS threads, in case a test changed it. This does not import torch."""
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "set_num_threads"):
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


@pytest.fixture(autouse=True)
def no_pickle_is_opened() -> Iterator[None]:
    """Fail a test that opened a pickle in any process, even if the error was swallowed."""
    size_before = _opened_log.stat().st_size
    yield
    if _opened_log.stat().st_size != size_before:
        pytest.fail(_opened_log.read_text("utf-8")[size_before:], pytrace=False)


@pytest.fixture
def allow_refused_pickles() -> Iterator[None]:
    """Do not fail a test for the pickles that the guard refused: for tests of the guard itself."""
    yield
    os.truncate(_opened_log, 0)


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Return the folder in TUNESMITH_TEST_DATA, which has gsm8k/, text/ and tokenizer-gpt2-chatml/."""
    folder = os.environ.get("TUNESMITH_TEST_DATA")
    if not folder:
        pytest.skip("TUNESMITH_TEST_DATA is not set to a folder of test data")
    path = Path(folder)
    assert path.is_dir(), f"TUNESMITH_TEST_DATA={folder} is not a folder"
    return path
