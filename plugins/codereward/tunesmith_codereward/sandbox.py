"""Run code in fenced processes: start them, read what they write, and end them at their deadline."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith import EnvironmentProblem

START = 5.0
"""Seconds that Python may need to start on a busy machine, in addition to the deadline of the code."""
OUTPUT = 1 << 20
"""Bytes of output of a process; one that writes more is ended."""
FENCE = Path(__file__).with_name("fence.py")
NOT_FENCED = 97
"""Exit status of fence.py if it can't fence itself in."""


@dataclass(frozen=True)
class Limits:
    """Limits of a process: seconds of wall time, bytes of memory, and whether it needs the fences of the kernel."""

    seconds: float
    memory: int
    kernel: bool


@dataclass(frozen=True)
class Done:
    """How a process ended: what it wrote, its exit status (None if it had to be ended), and why it did not start."""

    output: bytes
    status: int | None
    problem: str = ""


def passed_asserts(source: str, asserts: Sequence[str], limits: Limits) -> int:
    """Return how many of the statements pass after the code has run, all in one process."""
    mark = secrets.token_hex(16)
    done = run({"source": source, "asserts": list(asserts), "mark": mark}, "", limits)
    passed = {line for line in done.output.decode("utf-8", "replace").splitlines() if line.startswith(mark)}
    return sum(f"{mark} {number}" in passed for number in range(len(asserts)))


def passed_cases(source: str, cases: Sequence[tuple[str, str]], limits: Limits) -> int:
    """Return how many cases print the expected output, each in a process of its own.

    After a case that had to be ended, no others are run: they count as not passed.
    """
    passed = 0
    for given, expected in cases:
        done = run({"source": source}, given, limits)
        passed += done.status == 0 and lines(done.output.decode("utf-8", "replace")) == lines(expected)
        if done.status is None:
            break
    return passed


def lines(text: str) -> list[str]:
    """Return the lines of an output without whitespace at their ends, and without empty lines at the end."""
    return [line.rstrip() for line in text.rstrip().splitlines()]


def run(job: dict[str, Any], given: str, limits: Limits) -> Done:
    """Run a job of fence.py in a new process, with an input. Raise EnvironmentProblem if it can't be fenced."""
    environment = {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "SYSTEMROOT") if name in os.environ}
    command = [sys.executable, "-I", "-S", "-X", "utf8", str(FENCE)]
    with tempfile.TemporaryDirectory(prefix="tunesmith-code-") as folder, tempfile.TemporaryFile() as standard_input:
        settings = {"seconds": limits.seconds, "memory": limits.memory, "kernel": limits.kernel}
        Path(folder, "job.json").write_text(json.dumps(job | settings), encoding="utf-8")
        standard_input.write(given.encode("utf-8", "replace"))
        standard_input.seek(0)
        process = subprocess.Popen(
            command, stdin=standard_input, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0, close_fds=True,
            env=environment | {"PATH": "/usr/bin:/bin"}, cwd=folder, start_new_session=True,
        )  # fmt: skip
        try:
            done = _finished(process, time.monotonic() + limits.seconds + START)
        finally:
            _end(process)
    if done.problem:
        help = "use Linux with Landlock and seccomp, or accept a weaker fence: isolation: python (see the README)"
        raise EnvironmentProblem(f"code can't be run in a fenced process: {done.problem}", help=help)
    return done


def _finished(process: subprocess.Popen[bytes], deadline: float) -> Done:
    """Return how a process ended by itself, or what it wrote until its deadline or its limit of output.

    A pipe is read until it is closed, which the end of the process causes; but a process that the code started, where
    the fence can't prevent that, may keep it open.
    """
    assert process.stdout and process.stderr
    texts = {process.stdout.fileno(): b"", process.stderr.fileno(): b""}
    output, errors = texts
    open_pipes = set(texts)
    while open_pipes and len(texts[output]) <= OUTPUT and len(texts[errors]) <= OUTPUT:
        ready, _, _ = select.select(list(open_pipes), [], [], max(0.0, min(0.2, deadline - time.monotonic())))
        for pipe in ready:
            chunk = os.read(pipe, 1 << 16)
            texts[pipe] += chunk
            if not chunk:
                open_pipes.remove(pipe)
        if time.monotonic() >= deadline or (not ready and process.poll() is not None):
            break
    ended = not open_pipes or process.poll() is not None
    with contextlib.suppress(subprocess.TimeoutExpired):
        status = process.wait(max(0.0, deadline - time.monotonic())) if ended else None
        problem = texts[errors].decode("utf-8", "replace").strip() if status == NOT_FENCED else ""
        return Done(texts[output], status if status is None or status >= 0 else None, problem)
    return Done(texts[output], None)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and those of its group, and close its pipes."""
    with contextlib.suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    for pipe in (process.stdout, process.stderr):
        if pipe:
            pipe.close()
    process.wait()
