"""The worker processes of a run, which call its reward functions on their shares of the completions."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith_engine.rewards.worker import Failed, Worker

START = 300.0
"""Seconds for importing the functions, which may import torch from a slow disk."""


@dataclass(frozen=True)
class Function:
    """A reward function to import: of a module, or of a file if `module` is "", with its options."""

    module: str
    file: Path | None
    name: str
    options: dict[str, Any]


@dataclass(frozen=True)
class Share:
    """The completions of one worker: the columns with one item per completion, those of all calls, and a seed."""

    number: int
    columns: dict[str, list[Any]]
    shared: dict[str, Any]
    seed: int


@dataclass(frozen=True)
class Scored:
    """The answer of a worker: scores, the seconds of the function, the end of what it printed, and its warnings."""

    scores: list[float | None]
    seconds: float
    printed: str
    warnings: list[str]


class ShareFailed(Exception):
    """A function failed on share number `share`."""

    def __init__(self, share: int, failed: Failed):
        super().__init__(str(failed))
        self.share, self.failed = share, failed


class Pool:
    """Processes with the same functions each. They are started at once, and import the functions in the background.

    Args:
        functions: the functions, which calls name by their number.
        base: the folder of the YAML. Functions of files can import modules from it.
        size: number of processes.
    """

    def __init__(self, functions: Sequence[Function], base: Path, size: int):
        self.functions = functions
        items = [
            {"module": f.module, "file": str(f.file) if f.file else None, "function": f.name, "options": f.options}
            for f in functions
        ]
        # The folder of the YAML comes first only for code of that folder: plugins import nothing from there.
        path = [str(base), *sys.path] if any(f.file for f in functions) else sys.path
        self.workers: list[Worker] = []
        self.started = time.monotonic()
        try:
            for _ in range(size):
                self.workers.append(Worker({"path": path, "items": items}))
        except BaseException:
            self.close()
            raise

    def imported(self, number: int) -> dict[str, Any]:
        """Wait until each process has imported a function, and return its signature and the problems of its options.

        Call it once for each function, in order. Raises Failed.
        """
        answers = [worker.receive(self.started + START) for worker in self.workers]
        return answers[0]

    def call(self, number: int, shares: Sequence[Share], seconds: float) -> list[Scored]:
        """Call a function on shares, at most one per process, and return the answers. Raises ShareFailed.

        `seconds` is the limit of the call. What hangs is killed.
        """
        until = time.monotonic() + seconds
        answers = []
        share = 0
        try:
            for share, part in enumerate(shares):
                request = {
                    "item": number, "number": part.number, "columns": part.columns, "shared": part.shared,
                    "seed": part.seed,
                }  # fmt: skip
                self.workers[share].send(request, seconds)
            for share in range(len(shares)):
                worker = self.workers[share]
                answer = worker.receive(until)
                printed = worker.output.since(worker.mark)
                answers.append(Scored(answer["scores"], answer["seconds"], printed, answer["warnings"]))
        except Failed as failed:
            raise ShareFailed(share, failed) from failed
        return answers

    def printed(self) -> bool:
        """Return True if a function has printed anything so far."""
        return any(worker.output.total for worker in self.workers)

    def close(self) -> None:
        """End all processes."""
        for worker in self.workers:
            worker.connection.close()  # all begin to end at once
        for worker in self.workers:
            worker.close()
