"""Start the child process that compares answers, send it pairs, and replace it when it takes too long."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tunesmith import EnvironmentProblem

GRACE = 5.0
"""Seconds: the child ends itself at a deadline. This much later it is killed, if its system has no alarm signals."""
START = 60.0
"""Seconds in which the child has to start, on a busy machine."""


class Checker:
    """A child process that compares answers. It is used by one thread at a time; others wait."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def score(self, gold: str, text: str, timeout: float) -> float | None:
        """Return 1.0 if the final answer of a text equals the gold one, and 0.0 if not or if that takes too long.

        Return None if the gold answer can't be parsed in time. Raise EnvironmentProblem if the child can't be started.
        """
        with self._lock:
            if self._process is None:
                self._process = self._started()
            parsed = False
            try:
                with _deadline(self._process, timeout + GRACE):
                    _send(self._process, {"gold": gold, "text": text, "timeout": timeout})
                    parsed = _receive(self._process)["parsed"]
                    return float(_receive(self._process)["equal"]) if parsed else None
            except (EOFError, OSError):
                self.close()
                return 0.0 if parsed else None

    def close(self) -> None:
        """End the child. The next comparison starts another one."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            for pipe in (process.stdin, process.stdout):
                if pipe:
                    with contextlib.suppress(OSError):
                        pipe.close()
            process.wait()

    def _started(self) -> subprocess.Popen[bytes]:
        # -P: the folder of child.py is not where its imports come from. A new session: Ctrl-C reaches only the run.
        command = [sys.executable, "-P", str(Path(__file__).with_name("child.py"))]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
        )
        try:
            with _deadline(process, START):
                problem = _receive(process)["problem"]
        except EOFError:
            problem = f"it ended with status {process.wait()}"
        if problem:
            process.kill()
            message = f"the process that compares answers did not start: {problem}"
            raise EnvironmentProblem(message, help=f'pip install "tunesmith[math]", or run it: {" ".join(command)}')
        return process


@contextlib.contextmanager
def _deadline(process: subprocess.Popen[bytes], seconds: float) -> Iterator[None]:
    """Kill a process if the block takes longer than that, so that reading from it ends."""
    timer = threading.Timer(seconds, process.kill)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _send(process: subprocess.Popen[bytes], message: dict[str, Any]) -> None:
    assert process.stdin
    process.stdin.write(json.dumps(message).encode() + b"\n")
    process.stdin.flush()


def _receive(process: subprocess.Popen[bytes]) -> Any:
    """Return the next message of the child. Raise EOFError if it has ended."""
    assert process.stdout
    line = process.stdout.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    return json.loads(line)
