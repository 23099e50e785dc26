"""A reward function can do what it likes in its process: the run ends with an error in words, and nothing hangs."""

from __future__ import annotations

import contextlib
import os
import subprocess
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tunesmith_engine.rewards.output import Output
from tunesmith_engine.rewards.pool import Function, Pool, Share, ShareFailed
from tunesmith_engine.rewards.worker import Failed, in_words

FUNCTIONS = """
import asyncio, ctypes, os, random, signal, sys, threading, time

def fine(completions, **columns): return [float(len(text)) for text in completions]
def raises(completions, **columns): return [1 / len(text) for text in completions]
def raises_for_all(completions, **columns): raise KeyError("answer")
def refuses(completions, *, at_most=0, **columns): raise ValueError(f"at_most: {at_most} must be at least 1")
def hangs(completions, **columns):
    print("about to hang")
    while True: pass
def sleeps_in_c(completions, **columns): time.sleep(600)
def sleeps_with_gil(completions, **columns): ctypes.PyDLL(None).sleep(600)
def forks(completions, **columns):
    if os.fork() == 0:
        time.sleep(600)
    return [1.0 for _ in completions]
def forks_and_dies(completions, **columns):
    if os.fork() == 0:
        time.sleep(600)
    os._exit(7)
def exits(completions, **columns): sys.exit(3)
def exits_hard(completions, **columns): os._exit(3)
def kills_itself(completions, **columns): os.kill(os.getpid(), signal.SIGKILL)
def crashes(completions, **columns): ctypes.string_at(0)
def prints_without_end(completions, **columns):
    while True: print("x" * 1000)
def prints(completions, **columns):
    os.write(1, b"a" * 3_000_000)
    print("the last line")
    return [1.0 for _ in completions]
def too_few(completions, **columns): return [1.0]
def none(completions, **columns): return [None for _ in completions]
def nan(completions, **columns): return [0.0, 1.0, float("nan"), 2.0]
def infinite(completions, **columns): return [0.0, 10 ** 400, 1.0, 2.0]
def words(completions, **columns): return [1, "high", 2, 3]
def scalar(completions, **columns): return 3.5
def nothing(completions, **columns): pass
def generator(completions, **columns): yield from (1.0 for _ in completions)
async def awaits(completions, **columns):
    await asyncio.sleep(0)
    return [True for _ in completions]
def arrays(completions, **columns):
    import numpy
    return numpy.arange(4)
def tensors(completions, **columns):
    import torch
    return torch.arange(4.0, requires_grad=True)
def scalars(completions, **columns):
    import numpy
    import torch
    return [numpy.float32(0.5), torch.tensor(2), numpy.bool_(True), None]
def column(completions, **columns):
    import numpy
    return numpy.zeros((4, 1))
def draws(completions, **columns):
    import numpy
    return [random.random() + numpy.random.rand() for _ in completions]
def changes_the_process(completions, **columns):
    os.chdir("/"); os.environ["TUNESMITH_TEST"] = "x"; random.seed(0)
    sys.stdout = None
    os.umask(0o77)
    return [1.0 for _ in completions]
def closes_the_streams(completions, **columns):
    os.close(1); os.close(2)
    return [1.0 for _ in completions]
def reads_the_keyboard(completions, **columns): return [input() for _ in completions]
def describes_its_error(completions, **columns):
    from tunesmith.errors import EnvironmentProblem
    raise EnvironmentProblem("math is not installed", help="pip install math")
def starts_a_thread(completions, **columns):
    threading.Thread(target=time.sleep, args=(600,)).start()
    return [1.0 for _ in completions]
"""
COMPLETIONS = ["a", "bb", "", "dddd"]


@contextlib.contextmanager
def pool(folder: Path, *names: str, size: int = 1, code: str = FUNCTIONS, **options: Any) -> Iterator[Pool]:
    """Yield a pool with functions of a file."""
    file = folder / "scored.py"
    file.write_text(textwrap.dedent(code), encoding="utf-8")
    processes = Pool([Function("", file, name, options) for name in names], folder, size)
    try:
        for number in range(len(names)):
            assert processes.imported(number)["signature"]["any"]
        yield processes
    finally:
        processes.close()
    for worker in processes.workers:
        assert worker.process.returncode is not None, "a zombie is left"
        end = time.monotonic() + 60  # a killed process of a busy machine dies late; it would sleep for 600 seconds
        while living := members(worker.process.pid):
            assert time.monotonic() < end, f"its group has living members: {living}"
            time.sleep(0.1)


def members(group: int) -> list[str]:
    """Return the living processes of a group; a zombie belongs to whoever has to wait for it."""
    listed = subprocess.run(["ps", "-eo", "pid=,pgid=,stat="], capture_output=True, text=True, check=True).stdout
    fields = [line.split() for line in listed.splitlines()]
    return [pid for pid, own, state in fields if own == str(group) and not state.startswith("Z")]


def called(processes: Pool, number: int = 0, seconds: float = 20.0, seed: int = 1) -> list[float | None]:
    share = Share(len(COMPLETIONS), {"completions": COMPLETIONS}, {}, seed)
    (answer,) = processes.call(number, [share], seconds)
    return answer.scores


def failure(processes: Pool, number: int = 0, seconds: float = 20.0) -> Failed:
    with pytest.raises(ShareFailed) as caught:
        called(processes, number, seconds)
    return caught.value.failed


SCORES: dict[str, list[float | None]] = {
    "fine": [1, 2, 0, 4], "none": [None] * 4, "awaits": [1, 1, 1, 1], "arrays": [0, 1, 2, 3], "tensors": [0, 1, 2, 3],
    "scalars": [0.5, 2, 1, None], "changes_the_process": [1, 1, 1, 1], "prints": [1, 1, 1, 1],
    "closes_the_streams": [1, 1, 1, 1],
}  # fmt: skip
"""Functions of one process, called in this order."""


def test_scores_of_many_kinds_become_numbers(tmp_path: Path) -> None:
    folder, environment = os.getcwd(), dict(os.environ)
    with pool(tmp_path, *SCORES) as processes:
        for number, (name, scores) in enumerate(SCORES.items()):
            assert called(processes, number) == scores, name
    assert (os.getcwd(), dict(os.environ)) == (folder, environment)


def test_what_a_function_printed_is_complete_when_it_returns() -> None:
    """The thread that reads the pipe may be late: without waiting for it, most of these texts are lost."""
    for _ in range(50):
        reading, writing = os.pipe()
        output = Output(reading)
        os.write(writing, b"hello")
        assert output.since(0) == "hello"
        os.close(writing)
        output.close()


RETURNED = {
    "raises": ("ZeroDivisionError: division by zero", 2),
    "raises_for_all": ("KeyError: 'answer'", 0),
    "refuses": ("ValueError: at_most: 0 must be at least 1", None),
    "exits": ("sys.exit(3) was called", None),
    "too_few": ("it returned 1 scores for 4 completions", None),
    "nan": ("it returned NaN", 2),
    "infinite": ("it returned an infinite score", 1),
    "words": ("it returned str 'high' as a score, not a number", 1),
    "scalar": ("it returned float 3.5, not a list with one score per completion", None),
    "nothing": ("it returned None, not a list", None),
    "generator": ("it returned a generator, not a list", None),
    "column": ("it returned an array of shape (4, 1), not (4,)", None),
    "reads_the_keyboard": ("EOFError", 0),
}


def test_a_wrong_answer_is_described_with_its_line_and_its_completion(tmp_path: Path) -> None:
    lines = FUNCTIONS.splitlines()
    with pool(tmp_path, *RETURNED) as processes:
        for number, (name, (words, index)) in enumerate(RETURNED.items()):
            failed = failure(processes, number)
            assert words in str(failed) and failed.index == index, (name, str(failed), failed.index)
            line = next(i for i, text in enumerate(lines, 1) if text.startswith(f"def {name}("))
            assert failed.where == f"{tmp_path / 'scored.py'}:{line}", name


ENDED = {
    "hangs": ("did not return", "about to hang"),
    "sleeps_in_c": ("did not return", None),
    "sleeps_with_gil": ("did not return", None),
    "prints_without_end": ("did not return", "it printed:\n... xxx"),
    "forks_and_dies": ("its process ended with exit code 7 during the call", "os._exit"),
    "exits_hard": ("its process ended with exit code 3 during the call", "os._exit"),
    "kills_itself": ("its process was killed by SIGKILL", "memory runs out"),
    "crashes": ("its process was killed by SIGSEGV", "a library"),
}


@pytest.mark.parametrize("name", ENDED)
def test_a_process_that_hangs_or_dies_is_an_error_in_words(name: str, tmp_path: Path) -> None:
    words, help = ENDED[name]
    with pool(tmp_path, name) as processes:
        started = time.monotonic()
        failed = failure(processes, seconds=1.0)
        assert words in str(failed) and (help is None or help in (in_words(failed) or "")), (failed, in_words(failed))
        assert time.monotonic() - started < 5
        assert failed.timed_out == (words == "did not return")
        if failed.timed_out or name == "crashes":
            line = failed.where and FUNCTIONS.splitlines()[int(failed.where.rpartition(":")[2]) - 1]
            assert line and any(word in line for word in ("while True", "sleep", "string_at")), failed.where
    assert time.monotonic() - started < 10


def test_an_error_of_tunesmith_keeps_its_class_and_help(tmp_path: Path) -> None:
    with pool(tmp_path, "describes_its_error") as processes:
        failed = failure(processes)
    assert (failed.kind, str(failed), failed.help) == (
        "EnvironmentProblem",
        "math is not installed",
        "pip install math",
    )


@pytest.mark.parametrize("name", ["forks", "starts_a_thread"])
def test_what_a_function_leaves_running_ends_with_its_process(name: str, tmp_path: Path) -> None:
    with pool(tmp_path, name) as processes:
        assert called(processes) == [1.0] * 4
        assert called(processes) == [1.0] * 4
        started = time.monotonic()
    assert time.monotonic() - started < 30  # of the 600 that it sleeps: on a busy machine, ending it takes seconds


def test_output_is_kept_in_part(tmp_path: Path) -> None:
    with pool(tmp_path, "prints") as processes:
        called(processes)
        output = processes.workers[0].output
        output.settle()
        assert output.since(0).endswith("the last line") and len(output.since(0)) <= 4096 < output.total


def test_random_numbers_depend_on_the_seed_of_the_call_only(tmp_path: Path) -> None:
    with pool(tmp_path, "draws") as processes:
        first = called(processes, seed=5)
        other = called(processes, seed=6)
        again = called(processes, seed=5)
    assert first == again != other


def test_every_process_scores_its_share(tmp_path: Path) -> None:
    shares = [Share(2, {"completions": texts}, {}, 0) for texts in (["a", "bb"], ["ccc", ""])]
    with pool(tmp_path, "fine", size=2) as processes:
        assert [answer.scores for answer in processes.call(0, shares, 20.0)] == [[1, 2], [3, 0]]


BROKEN = {
    "import": ("1 / 0\n", "ZeroDivisionError: division by zero", ":1"),
    "exit": ("import sys\nsys.exit(0)\n", "sys.exit(0) was called", ":2"),
    "hard exit": ("import os\nos._exit(0)\n", "its process ended with exit code 0", ""),
    "syntax": ("def fine(:\n", "SyntaxError", ":1"),
    "not a function": ("fine = 3\n", "it is not a function but int", ""),
    "positional": ("def fine(completions, /): ...\n", "completions is positional only", ""),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_file_that_can_not_be_imported_is_an_error_with_its_line(case: str, tmp_path: Path) -> None:
    code, words, line = BROKEN[case]
    with (
        pytest.raises(Failed, match=words.replace("(", r"\(").replace(")", r"\)")) as caught,
        pool(tmp_path, "fine", code=code),
    ):
        pass
    assert not line or caught.value.where == f"{tmp_path / 'scored.py'}{line}"


def test_only_a_function_of_a_file_imports_from_the_folder_of_the_yaml(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("VALUE = 5.0\n", encoding="utf-8")
    code = "from beside import VALUE\ndef fine(completions, **columns): return [VALUE] * len(completions)\n"
    with pool(tmp_path, "fine", code=code) as processes:
        assert called(processes) == [5.0] * 4
    processes = Pool([Function("beside", None, "VALUE", {})], tmp_path, 1)
    try:
        with pytest.raises(Failed, match="No module named 'beside'"):
            processes.imported(0)
    finally:
        processes.close()


def test_a_worker_imports_torch_only_for_a_function_that_does(tmp_path: Path) -> None:
    code = "import sys\ndef fine(completions, **columns): return [float('torch' in sys.modules)] * len(completions)\n"
    with pool(tmp_path, "fine", code=code) as processes:
        assert called(processes) == [0.0] * 4
