"""Build blocks in several processes. They are forked, so they have the run, with its tokenizer and plugins, without
serializing it, and write their shards themselves: nothing passes through the main process."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import time
from typing import Any

from tunesmith import errors
from tunesmith.files.row import Source
from tunesmith.run import Run
from tunesmith_engine.data import progress, shards
from tunesmith_engine.data.blocks import Share, build_share
from tunesmith_engine.data.shards import Shards

POLL = 0.2
"""Seconds between two reports of progress."""


def available() -> bool:
    return "fork" in multiprocessing.get_all_start_methods()


def build_in_processes(processes: int, run: Run, sources: list[Source], store: Shards, share: Share) -> None:
    """Build the blocks of a share by several processes. Errors of rows are recorded in the shards.

    Raises EnvironmentProblem if a process dies.
    """
    if run.hooks.has("filter_rows"):
        for source in sources:  # a filter that reads all rows does so here, once, instead of in every process
            next(iter(source.rows), None)
    context: Any = multiprocessing.get_context("fork")
    rows = context.RawArray("q", processes)
    workers = [
        context.Process(
            target=_work, args=(run, sources, store, _part(share, k, processes), rows, k, os.getpid()), daemon=True
        )
        for k in range(processes)
    ]
    for worker in workers:
        worker.start()
    try:
        _wait(run, sources, workers, rows)
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()


def _part(share: Share, index: int, of: int) -> Share:
    """Return every `of`-th block of a share."""
    return Share(share.index + share.of * index, share.of * of)


def _wait(run: Run, sources: list[Source], workers: list[Any], rows: Any) -> None:
    """Wait until all workers have ended. Raise EnvironmentProblem if one of them died."""
    shown, numbers = time.monotonic(), [getattr(source.rows, "number", None) for source in sources]
    total = None if None in numbers else sum(number or 0 for number in numbers) // run.world.size
    running = list(workers)
    while running:
        multiprocessing.connection.wait([worker.sentinel for worker in running], POLL)
        running = [worker for worker in running if worker.is_alive()]
        if died := [worker for worker in workers if worker.exitcode]:
            message = f"a process that prepares data died (exit code {died[0].exitcode})"
            raise errors.EnvironmentProblem(message, help="write dataset_num_proc: 1, which needs less memory")
        run.progress("tokenizing", sum(rows), total)
        if time.monotonic() - shown > progress.SECONDS:
            shown = time.monotonic()
            print(f"preparing: {sum(rows):,} rows are done", file=sys.stderr, flush=True)


def _work(run: Run, sources: list[Source], store: Shards, share: Share, rows: Any, number: int, parent: int) -> None:
    """Build a share, and count its rows."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the main one terminates this one
    if store.lock is not None:
        os.close(store.lock)  # or it stays locked after the main process is killed
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes already use the cores

    def on_block() -> None:
        rows[number] += shards.ROWS_PER_BLOCK
        if os.getppid() != parent:
            os._exit(1)  # the main process is gone

    build_share(run, sources, store, share, on_block)
