"""Examples of one entry by several processes: each takes every so-manieth block of rows, and blocks come in order.

Processes are forked, so they have the run as it is; what they make goes through files, as prepared data does. The
result is that of one process: the same examples in the same order, the same counts, the error of the earliest bad row.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tunesmith import errors
from tunesmith.config.load import DatasetSpec
from tunesmith.files.row import Row
from tunesmith.run import Run
from tunesmith_engine.batch.examples import Example, ExampleStore
from tunesmith_engine.data.cache import Counts
from tunesmith_engine.data.prepare import examples_of

BLOCK = 1024
"""Rows of a block: some tenths of a second of work."""
POLL = 0.01
"""Seconds between two looks whether a block is there."""


def available() -> bool:
    return "fork" in multiprocessing.get_all_start_methods()


def examples_by(processes: int, run: Run, spec: DatasetSpec, rows: Iterable[Row], counts: Counts) -> Iterator[Example]:
    """What `examples_of` gives, by `processes` of them. Raises what it raises."""
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
                yield from ExampleStore.load(folder / str(block))
                block += 1
            # Every earlier block came, so whoever owes this one has the earliest error, if there is any
            order = [(block + k) % processes for k in range(processes)]
            _merge(run, counts, [_told(folder, k, workers[k]) for k in order])
        finally:
            for worker in workers:
                worker.terminate()
                worker.join()


def _wait(block: Path, worker: Any) -> bool:
    """Whether a block comes: it is there, or its worker still works."""
    while worker.is_alive():
        if block.exists():
            return True
        time.sleep(POLL)
    return block.exists()


def _told(folder: Path, number: int, worker: Any) -> dict[str, Any]:
    """What a worker says at its end. Raises the error that it ended with, EnvironmentProblem where it just died."""
    worker.join()
    path = folder / f"told-{number}.json"
    if not path.exists():
        message = f"a process that prepares data died (exit code {worker.exitcode})"
        raise errors.EnvironmentProblem(message, help="dataset_num_proc: 1 needs less memory")
    told: dict[str, Any] = json.loads(path.read_text("utf-8"))
    if "problems" in told:
        problems = [errors.Problem(**problem) for problem in told["problems"]]
        raise getattr(errors, told["error"])(problems)
    return told


def _merge(run: Run, counts: Counts, told: list[dict[str, Any]]) -> None:
    for one in told:
        for name, number in one["counts"].items():
            setattr(counts, name, getattr(counts, name) + number)
        for name, value in one["notes"].items():
            others = run.notes.get(name)  # of another worker, which saw other rows
            run.notes[name] = value if others in (None, value) else f"{others}; and {value}"
    for what in sorted({what for one in told for what in one["first"]}):
        places = sorted(place for one in told for place in one["first"].get(what, []))
        counts.first[what] = [where for _, where in places[:3]]


# in a worker


@dataclass(frozen=True)
class Share:
    """Blocks `index`, `index + of`, ... of the rows."""

    index: int
    of: int

    def rows(self, rows: Iterable[Row]) -> Iterator[Row]:
        return (row for number, row in enumerate(rows) if number // BLOCK % self.of == self.index)

    def row(self, own: int) -> int:
        """The number among all rows of its own row number `own`."""
        return (own // BLOCK * self.of + self.index) * BLOCK + own % BLOCK


@dataclass
class _Numbered(Counts):
    """Counts that remember which row they speak of."""

    numbered: dict[str, list[tuple[int, str]]] = field(default_factory=dict)

    def mention(self, what: str, where: str) -> None:
        super().mention(what, where)
        if len(self.numbered.setdefault(what, [])) < 3:
            self.numbered[what].append((self.rows - 1, where))


def _work(share: Share, run: Run, spec: DatasetSpec, rows: Iterable[Row], folder: Path) -> None:
    """Write the examples of a share block by block, and at the end what became of its rows, or the error."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the run's own process ends this one
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # it is one of many
    before, counts = dict(run.notes), _Numbered()
    try:
        _write_blocks(share, examples_of(run, spec, share.rows(rows), counts), counts, folder)
        numbers = {name: value for name, value in asdict(counts).items() if isinstance(value, int)}
        first = {what: [(share.row(own), where) for own, where in one] for what, one in counts.numbered.items()}
        notes = {name: value for name, value in run.notes.items() if before.get(name) != value}
        told: dict[str, Any] = {"counts": numbers, "first": first, "notes": notes}
    except errors.TunesmithError as error:
        told = {"error": type(error).__name__, "problems": [asdict(problem) for problem in error.problems]}
    (folder / f"told-{share.index}.json").write_text(json.dumps(told, default=str), encoding="utf-8")


def _write_blocks(share: Share, examples: Iterator[Example], counts: Counts, folder: Path) -> None:
    """One folder for each block, those among them from whose rows nothing is left."""
    block, parent = 0, os.getppid()
    gathered: list[Example] = []

    def close() -> None:
        partial = folder / f"partial-{share.index}"
        partial.mkdir()
        ExampleStore.collect(gathered).save(partial)
        partial.rename(folder / str(block * share.of + share.index))
        gathered.clear()

    for example in examples:
        entry, own = example.origin
        while own // BLOCK > block:
            close()
            block += 1
            if os.getppid() != parent:
                os._exit(1)  # the run is gone
        example.origin = (entry, share.row(own))
        gathered.append(example)
    for _ in range(block, -(-counts.rows // BLOCK)):
        close()
        block += 1
