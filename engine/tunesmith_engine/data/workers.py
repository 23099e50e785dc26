"""Build the examples of a dataset entry in several processes, as if one process had built them.

Each process takes every n-th block of rows and writes its examples to files, which are read in the order of the blocks.
The result is that of one process: the same examples in the same order, the same counts, and the error of the first bad
row. Processes are forked, so they have the run, with its tokenizer and plugins, without serializing it.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from tunesmith import errors
from tunesmith.config.config import DatasetSpec
from tunesmith.files.row import Row
from tunesmith.run import Run
from tunesmith_engine.batch.examples import Example, ExampleStore
from tunesmith_engine.data import progress
from tunesmith_engine.data.cache import Counts
from tunesmith_engine.data.prepare import examples_of

ROWS_PER_BLOCK = 1024
"""Rows of a block, which take some tenths of a second to tokenize. A strategy may combine rows of the same block."""
POLL = 0.01
"""Seconds between two checks if a block is complete."""


def available() -> bool:
    return "fork" in multiprocessing.get_all_start_methods()


def examples_by(processes: int, run: Run, spec: DatasetSpec, rows: Iterable[Row], counts: Counts) -> Iterator[Example]:
    """Yield the same as `examples_of`, built by several processes, and raise the same errors.

    Raises EnvironmentProblem if a process dies.
    """
    with tempfile.TemporaryDirectory(prefix="tunesmith-") as name:
        folder = Path(name)
        context: Any = multiprocessing.get_context("fork")
        workers = [
            context.Process(target=_work, args=(Share(k, processes), run, spec, rows, folder), daemon=True)
            for k in range(processes)
        ]
        for worker in workers:
            worker.start()
        try:
            block = 0
            while _wait(folder / str(block), workers[block % processes]):
                for part in sorted((folder / str(block)).iterdir(), key=lambda path: int(path.name)):
                    yield from ExampleStore.load(part)
                block += 1
            # All earlier blocks were read, so the worker that did not write this one has the earliest error, if any.
            order = [(block + k) % processes for k in range(processes)]
            _merge(run, counts, [_read_report(folder, k, workers[k]) for k in order])
        finally:
            for worker in workers:
                worker.terminate()
                worker.join()


def _wait(block: Path, worker: Any) -> bool:
    """Wait until a block exists or its worker has ended. Return True if the block exists."""
    shown = time.monotonic()
    while worker.is_alive():
        if block.exists():
            return True
        time.sleep(POLL)
        if time.monotonic() - shown > progress.SECONDS:
            shown = time.monotonic()
            print(f"preparing: {int(block.name) * ROWS_PER_BLOCK:,} rows are done", file=sys.stderr, flush=True)
    return block.exists()


def _read_report(folder: Path, number: int, worker: Any) -> dict[str, Any]:
    """Return the counts and notes of a worker that has ended. Raises the error that ended it."""
    worker.join()
    path = folder / f"report-{number}.json"
    if not path.exists():
        message = f"a process that prepares data died (exit code {worker.exitcode})"
        raise errors.EnvironmentProblem(message, help="write dataset_num_proc: 1, which needs less memory")
    report: dict[str, Any] = json.loads(path.read_text("utf-8"))
    if "problems" in report:
        problems = [errors.Problem(**problem) for problem in report["problems"]]
        raise getattr(errors, report["error"])(problems)
    return report


def _merge(run: Run, counts: Counts, reports: list[dict[str, Any]]) -> None:
    """Add up the counts of all workers, and join their notes. The first rows are those of the smallest numbers."""
    for report in reports:
        for name, number in report["counts"].items():
            setattr(counts, name, getattr(counts, name) + number)
        for counted in ("suspicious", "notices"):
            numbers = getattr(counts, counted)
            for name, number in report[counted].items():
                numbers[name] = numbers.get(name, 0) + number
        for name, value in report["notes"].items():
            earlier = run.notes.get(name)  # of another worker, about other rows
            run.notes[name] = value if earlier in (None, value) else f"{earlier}; and {value}"
    for outcome in sorted({outcome for report in reports for outcome in report["first"]}):
        places = sorted(place for report in reports for place in report["first"].get(outcome, []))
        counts.first[outcome] = [where for _, where in places[:3]]


# in a worker


@dataclass(frozen=True)
class Share:
    """Blocks `index`, `index + of`, ... of the rows."""

    index: int
    of: int

    def rows(self, rows: Iterable[Row]) -> Iterator[Row]:
        return (row for number, row in enumerate(rows) if number // ROWS_PER_BLOCK % self.of == self.index)

    def row(self, own: int) -> int:
        """Return the number among all rows of row `own` of this share."""
        return (own // ROWS_PER_BLOCK * self.of + self.index) * ROWS_PER_BLOCK + own % ROWS_PER_BLOCK


@dataclass
class _Numbered(Counts):
    """Counts with the numbers of the first rows, by which those of several workers are sorted."""

    numbered: dict[str, list[tuple[int, str]]] = field(default_factory=dict)

    def place(self, outcome: str, where: str) -> None:
        super().place(outcome, where)
        if len(self.numbered.setdefault(outcome, [])) < 3:
            self.numbered[outcome].append((self.rows - 1, where))


def _work(share: Share, run: Run, spec: DatasetSpec, rows: Iterable[Row], folder: Path) -> None:
    """Write the examples of a share block by block, and then a report with its counts and notes, or with the error."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the main one terminates this one
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes already use the cores
    before, counts = dict(run.notes), _Numbered()
    try:
        _write_blocks(share, examples_of(run, spec, share.rows(rows), counts), counts, folder)
        numbers = {name: value for name, value in asdict(counts).items() if isinstance(value, int)}
        first = {
            outcome: [(share.row(own), where) for own, where in places] for outcome, places in counts.numbered.items()
        }
        notes = {name: value for name, value in run.notes.items() if before.get(name) != value}
        report: dict[str, Any] = {"counts": numbers, "first": first, "notes": notes}
        report |= {"suspicious": counts.suspicious, "notices": counts.notices}
    except (errors.TunesmithError, SystemExit) as failure:
        error = run.hooks.blame(failure) if isinstance(failure, SystemExit) else failure
        report = {"error": type(error).__name__, "problems": [asdict(problem) for problem in error.problems]}
    (folder / f"report-{share.index}.json").write_text(json.dumps(report, default=str), encoding="utf-8")


def _write_blocks(share: Share, examples: Iterator[Example], counts: Counts, folder: Path) -> None:
    """Write a folder for each block, including blocks without examples, so that the reader can count them."""
    block, parent = 0, os.getppid()
    gathered: list[Example] = []

    def close() -> None:
        partial = folder / f"partial-{share.index}"
        partial.mkdir()
        # A store has the same columns in all examples. Rows with other columns are an error, which the main process
        # reports, so they go into a store of their own.
        for number, (_, part) in enumerate(groupby(gathered, lambda e: (sorted(e.columns), sorted(e.inputs)))):
            (partial / str(number)).mkdir()
            ExampleStore.collect(part).save(partial / str(number))
        partial.rename(folder / str(block * share.of + share.index))  # a block exists only when it is complete
        gathered.clear()

    for example in examples:
        entry, own = example.origin
        while own // ROWS_PER_BLOCK > block:
            close()
            block += 1
            if os.getppid() != parent:
                os._exit(1)  # the main process is gone, and nothing reads the blocks
        example.origin = (entry, share.row(own))
        gathered.append(example)
    for _ in range(block, -(-counts.rows // ROWS_PER_BLOCK)):
        close()
        block += 1
