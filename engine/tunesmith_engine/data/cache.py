"""Prepared data: examples and counts of their rows, kept on disk for later runs and for other processes."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from tunesmith.run import Run
from tunesmith_engine.batch.examples import ExampleStore
from tunesmith_engine.data.suspicious import REASONS, UNLESS_USUAL
from tunesmith_engine.runtime.atomic import clearing, seal, why_invalid

ABANDONED = 24 * 3600.0
"""Seconds after which a half-written folder of another machine counts as abandoned."""


OUTCOMES = {
    "too_long": "rows dropped: longer than sequence_len",
    "untrained": "rows dropped: nothing is trained",
    "equal": "rows dropped: both answers are the same after they are cut to sequence_len",
    "truncated": "rows cut to sequence_len",
    "split": "rows split at sequence_len",
}
"""Field of Counts -> its line in the summary."""


@dataclass
class Counts:
    """Counts of the rows of an entry. Every row is in exactly one of kept, too_long, untrained and equal."""

    rows: int = 0
    kept: int = 0
    too_long: int = 0
    untrained: int = 0
    equal: int = 0
    """Pairs whose answers are equal after they were cut to sequence_len."""
    truncated: int = 0
    split: int = 0
    examples: int = 0
    tokens: int = 0
    trained_tokens: int = 0
    suspicious: dict[str, int] = field(default_factory=dict)
    """Rows that were kept and may not train what was meant, by the name of the reason (suspicious.REASONS)."""
    notices: dict[str, int] = field(default_factory=dict)
    """Rows by what was not used of them (Row.notice)."""
    first: dict[str, list[str]] = field(default_factory=dict)
    """Places of the first three rows of each outcome, reason and notice."""

    def mention(self, outcome: str, where: str) -> None:
        """Count a row as truncated, split, too_long, untrained or equal, or as suspicious for another reason.

        Keep the places of the first three.
        """
        if outcome in OUTCOMES:
            setattr(self, outcome, getattr(self, outcome) + 1)
        else:
            self.suspicious[outcome] = self.suspicious.get(outcome, 0) + 1
        self.place(outcome, where)

    def notice(self, text: str, where: str) -> None:
        """Count a row with a notice, and keep the places of the first three."""
        self.notices[text] = self.notices.get(text, 0) + 1
        self.place(text, where)

    def place(self, outcome: str, where: str) -> None:
        places = self.first.setdefault(outcome, [])
        if len(places) < 3:
            places.append(where)

    def add(self, later: Counts) -> None:
        """Add the counts of rows that come after these."""
        for name in (f.name for f in fields(self) if f.type == "int"):
            setattr(self, name, getattr(self, name) + getattr(later, name))
        for own, others in ((self.suspicious, later.suspicious), (self.notices, later.notices)):
            for name, number in others.items():
                own[name] = own.get(name, 0) + number
        for outcome, places in later.first.items():
            for where in places:
                self.place(outcome, where)

    def report(self, run: Run, name: str) -> None:
        """Note in the summary which rows of an entry were dropped or changed."""
        numbers = {text: (getattr(self, outcome), outcome) for outcome, text in OUTCOMES.items()}
        numbers |= {text: (self.suspicious.get(reason, 0), reason) for reason, text in REASONS.items()}
        for text, (number, outcome) in numbers.items():
            if number and not (outcome in UNLESS_USUAL and number * 2 >= self.rows):
                run.note(f"{name}: {text}", f"{number} of {self.rows}, first: {', '.join(self.first[outcome])}")
        for text, number in self.notices.items():
            run.note(f"{name}: {text}", f"{number} of {self.rows} rows, first: {', '.join(self.first[text])}")


@dataclass
class Prepared:
    """The prepared data of a run: training examples (None for a stream), held-out examples, counts by entry."""

    train: ExampleStore | None
    eval: ExampleStore | None
    counts: dict[str, Counts]
    fingerprint: str
    """Hash of everything that the examples are made from."""
    cached: bool = False

    @functools.cached_property
    def content(self) -> str | None:
        """The hash of the training examples themselves, whatever they were made from; None for a stream."""
        return self.train.content() if self.train is not None else None


def cached(run: Run, folder: Path, fingerprint: str) -> Prepared | None:
    """Return the data that an earlier run kept, or None if the folder is missing or invalid, with a note in that case.

    An invalid cache is not an error, because it can be prepared again.
    """
    if not folder.exists():
        return None
    if why := why_invalid(folder):
        run.note("prepared data", f"prepared again: {folder.name} {why}")
        return None
    try:
        return read(run, folder, fingerprint, cached=True)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:  # sealed, but not ours
        run.note("prepared data", f"prepared again: {folder.name} can't be read: {type(error).__name__}: {error}")
        return None


def read(run: Run, folder: Path, fingerprint: str, cached: bool) -> Prepared:
    """Map the prepared data of a folder into memory, and repeat its notes in this run."""
    counts = {name: Counts(**fields) for name, fields in _read_json(folder / "counts.json").items()}
    for name, value in _read_json(folder / "notes.json").items():
        run.notes.setdefault(name, value)
    train, held = (ExampleStore.load(folder / name) if (folder / name).exists() else None for name in ("train", "eval"))
    return Prepared(train, held, counts, fingerprint, cached)


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


@contextlib.contextmanager
def filling(folder: Path, complete: Callable[[], Any]) -> Iterator[Path]:
    """Yield a folder to fill, which becomes `folder` at the end of the block.

    If `complete` is true by then, another run wrote the same data meanwhile. Its folder stays, since processes may be
    reading it, and this one is deleted.
    """
    for old in folder.parent.glob(f".{folder.name}.*"):
        if _is_abandoned(old, old.name.removeprefix(f".{folder.name}.")):
            shutil.rmtree(old, ignore_errors=True)
    # Machine and process in the name: two runs with the same data may prepare it at the same time.
    partial = folder.with_name(f".{folder.name}.{platform.node()}-{os.getpid()}")
    with clearing(partial, True):
        partial.mkdir(parents=True, exist_ok=True)
        yield partial
        if complete():
            shutil.rmtree(partial)
        else:
            seal(partial, folder)


def _is_abandoned(partial: Path, owner: str) -> bool:
    """Return True if the process that writes a folder is gone, or if the folder is a day old. owner: machine-process.

    Signal 0 tests if a process exists. It works on the same machine only, so other machines' folders expire by age.
    """
    machine, _, number = owner.rpartition("-")
    if machine == platform.node() and number.isdecimal():
        try:
            os.kill(int(number), 0)
        except ProcessLookupError:
            return True
        except OSError:  # exists, and belongs to another user
            return False
    return time.time() - partial.stat().st_mtime > ABANDONED
