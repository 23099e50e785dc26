"""Train each trial in a process of its own, `python -m tunesmith train`, and end these processes gracefully."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from tunesmith import EnvironmentProblem
from tunesmith_sweep.checking import Base
from tunesmith_sweep.trial import Trial, override

LOG = "log.txt"
STOPPED = {128 + number for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGXCPU)}
"""Exit codes of a run that a signal ended after a checkpoint."""
LAST_LINES = 8_000
"""Bytes of the end of a log that are searched for the reason of a failure."""


def command_of(base: Base, trial: Trial, output_dir: Path) -> list[str]:
    """Return the command that trains a trial, and that resumes it."""
    keys = [override(key, value) for key, value in base.keys(trial, output_dir).items()]
    return [sys.executable, "-m", "tunesmith", "train", str(base.path), *base.overrides, *keys]


class Process:
    """The process of a trial. Its output is appended to log.txt in the folder of the trial."""

    def __init__(self, trial: Trial, command: list[str], folder: Path, environment: Mapping[str, str]):
        self.trial, self.started = trial, time.monotonic()
        self.pruned = False
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._log: BinaryIO = (folder / LOG).open("ab")
        except OSError as error:
            message = f"{folder} can't be written: {error.strerror}"
            raise EnvironmentProblem(message, help="make room, and check its permissions", code="disk") from error
        self.path = folder / LOG
        # A session of its own: Ctrl-C in the terminal reaches the sweep only, which passes on one signal. A second
        # one would end the run without a checkpoint.
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=subprocess.STDOUT, start_new_session=True,
            env=os.environ | dict(environment),
        )  # fmt: skip

    def poll(self) -> int | None:
        """Return the exit code, or None while the process runs."""
        code = self.process.poll()
        if code is not None and not self._log.closed:
            self._log.close()
        return code

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    def interrupt(self) -> None:
        """Ask the run to save a checkpoint and end; asked again, it ends at once."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the process and its children at once."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def reason(log: Path, code: int) -> str:
    """Return why a run failed: the last error in its log, or the signal that ended it."""
    if code < 0:
        return f"ended by {signal.Signals(-code).name}"
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - LAST_LINES))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    errors = [line.strip() for line in lines if "error[" in line]
    return (errors or [line.strip() for line in lines if line.strip()] or [f"exit code {code}"])[-1][:300]


class Signals:
    """Counts the signals that end a sweep, within a block."""

    def __init__(self) -> None:
        self.number: int | None = None
        self.count = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._arrived)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _arrived(self, number: int, frame: Any) -> None:
        self.number = self.number or number
        self.count += 1
