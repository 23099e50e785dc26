"""Run the processes of a distributed run as forks of the test, which need no imports of their own."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from tests import tiny

SECONDS = 240


class Group:
    """The forked processes of one launch, each of which calls `action` with its rank in their environment.

    Args:
        processes: how many.
        action: what each of them does.
        folder: where each process writes its output, as RANK.txt.
    """

    def __init__(self, processes: int, action: Callable[[], Any], folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        shared = {
            "WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        context = multiprocessing.get_context("fork")
        ranks = [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]
        self.processes = [context.Process(target=_run, args=(own, action, folder), daemon=True) for own in ranks]
        self.started = time.time()
        for process in self.processes:
            process.start()

    def codes(self) -> list[int | None]:
        """Wait for all processes, and return their exit codes; None for one that does not end."""
        for process in self.processes:
            process.join(SECONDS)
        return [process.exitcode for process in self.processes]

    def output(self) -> str:
        """Return the last lines of each process."""
        return "\n".join(f"{path.name}: {path.read_text()[-2500:]}" for path in sorted(self.folder.glob("*.txt")))

    def kill(self) -> None:
        """Kill what is left of it."""
        for process in self.processes:
            process.kill()
            process.join()


def _run(environment: dict[str, str], action: Callable[[], Any], folder: Path) -> None:
    from accelerate import PartialState

    PartialState._reset_state()  # of runs in the process that forked this one
    os.environ.update(environment)
    with (folder / f"{environment['RANK']}.txt").open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
    code = 1
    try:
        action()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # everything is saved; skip the shutdown of torch's threads, which is not under test


def train(processes: int, folder: Path, *configs: Path) -> None:
    """Train configs one after the other in one group of forked processes, or in this process if there is one."""
    if processes == 1:
        for path in configs:
            tiny.train(path)
        return
    group = Group(processes, lambda: in_turn(configs), folder)
    codes = group.codes()
    assert codes == [0] * processes, f"{codes}\n{group.output()}"


def in_turn(configs: Sequence[Path]) -> None:
    """Train configs, then leave the process group."""
    run = None
    for path in configs:
        run = tiny.start(path)
        from tunesmith.api import train as train_run

        train_run(run)
    if run is not None:
        run.world.leave()


def free_port() -> int:
    """Return the number of a port that nobody uses now."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
